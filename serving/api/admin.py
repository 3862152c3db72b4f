"""Administration over HTTP under /admin/.

It lists, reloads and rolls back the models (docs/hot-swap.md), tries out candidates (docs/canary.md), and counts and
deletes the collected pictures (docs/collect.md).
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from serving.api.canary import parse_canary, parse_name, state
from serving.api.model_info import loaded
from serving.collect.collector import Collector
from serving.http.body import RequestBody, read_body
from serving.http.errors import RequestError, bad_parameter, unavailable
from serving.http.json_body import parse_object
from serving.http.response import Answer, as_json
from serving.lifecycle.canary.rollout import Rollout
from serving.lifecycle.hot_swap import HotSwap, Swap
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel

if TYPE_CHECKING:
    from starlette.types import Scope

_MAX_BODY = 2**16
_BODY_SECONDS = 10.0
_FOLDER_RETRY = 60
_PATHS = (
    "GET /admin/models, POST /admin/models/NAME/load, POST /admin/models/NAME/rollback, GET, POST and DELETE "
    "/admin/models/NAME/canary, POST /admin/models/NAME/promote, GET and DELETE /admin/collected"
)

Value = TypeVar("Value")


class Admin:
    """Handler of everything under /admin/, for requests with the token.

    Args:
        models: the models of the service.
        hot_swap: replaces models.
        rollout: tries out candidates.
        collector: of pictures; None if the service collects none.
        token: the secret; empty: refuse all requests.
    """

    def __init__(
        self, models: Registry, hot_swap: HotSwap, rollout: Rollout, collector: Collector | None, token: str
    ) -> None:
        self._models = models
        self._hot_swap = hot_swap
        self._rollout = rollout
        self._collector = collector
        self._token = token

    async def __call__(self, scope: Scope, receive: RequestBody) -> Answer:
        """Serve one request.

        Raises:
            RequestError: 401 without the token; 404 if administration is off or the path is unknown; those of
                `HotSwap`.
        """
        self._authorize(scope)
        match scope["path"].split("/")[2:]:
            case ["models"]:
                _only(scope, "GET")
                return as_json({"models": [self._state(model) for model in self._models.all()]})
            case ["models", name, "load"]:
                _only(scope, "POST")
                bundle = _parse_bundle(await _body(receive))
                return as_json(_swap_report(await _in_thread(lambda: self._hot_swap.load(name, bundle))))
            case ["models", name, "rollback"]:
                _only(scope, "POST")
                return as_json(_swap_report(await _in_thread(lambda: self._hot_swap.rollback(name))))
            case ["models", name, "promote"]:
                _only(scope, "POST")
                return as_json(_swap_report(await _in_thread(lambda: self._rollout.promote(name))))
            case ["models", name, "canary"]:
                return as_json(await self._canary(name, scope, receive))
            case ["collected"]:
                return as_json(await self._collected(scope))
        raise RequestError(404, "not_found", f"there is nothing at this path: there are {_PATHS}")

    async def _canary(self, name: str, scope: Scope, receive: RequestBody) -> dict[str, Any]:
        """Start, change or withdraw a candidate; return the state afterwards."""
        if scope["method"] == "POST":
            request = parse_canary(await _body(receive))
            await _in_thread(lambda: self._rollout.start(name, request))
        elif scope["method"] == "DELETE":
            await _in_thread(lambda: self._rollout.withdraw(name))
        else:
            _only(scope, "GET")
        return state(self._models, self._rollout, name)

    async def _collected(self, scope: Scope) -> dict[str, Any]:
        """Count the collected pictures, or delete them."""
        collector = self._collector
        if collector is None:
            message = "no pictures are collected: start the service with HALFTONE_COLLECT=FOLDER"
            raise RequestError(404, "not_found", message)
        try:
            if scope["method"] == "DELETE":
                return {"deleted": await _in_thread(collector.clear)}
            _only(scope, "GET")
            return (await _in_thread(collector.contents)).description()
        except OSError as error:
            message = f"the folder of HALFTONE_COLLECT failed ({error.strerror}): put it back, or make it writable"
            raise unavailable("folder_failed", message, retry_after=_FOLDER_RETRY) from None

    def _authorize(self, scope: Scope) -> None:
        if not self._token:
            raise RequestError(
                404,
                "not_found",
                "/admin is switched off: start the service with HALFTONE_ADMIN_TOKEN=SECRET, of at least 16 characters",
            )
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, secret = given.partition(b" ")
        # Digests are compared: the time that takes reveals neither the length nor the bytes of the secret.
        same = hmac.compare_digest(sha256(secret.strip()).digest(), sha256(self._token.encode()).digest())
        if kind.lower() != b"bearer" or not same:
            raise RequestError(
                401,
                "unauthorized",
                "send the header `Authorization: Bearer TOKEN` with the service's HALFTONE_ADMIN_TOKEN",
                {"WWW-Authenticate": 'Bearer realm="admin"'},
            )

    def _state(self, model: ServedModel) -> dict[str, Any]:
        previous = self._models.previous(model.name)
        return loaded(model) | {
            "previous": loaded(previous) if previous else None,
            "swapping": self._hot_swap.is_busy(model.name),
            **state(self._models, self._rollout, model.name),
        }


def _swap_report(swap: Swap) -> dict[str, Any]:
    return loaded(swap.model) | {"replaced": loaded(swap.replaced), "seconds": round(swap.seconds, 3)}


async def _body(receive: RequestBody) -> bytes:
    return await read_body(receive, None, limit=_MAX_BODY, seconds=_BODY_SECONDS)


def _only(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise RequestError(405, "method_not_allowed", f"use {method} {scope['path'][:200]}", {"Allow": method})


def _parse_bundle(body: bytes) -> str | None:
    """Return the name of the bundle in a request's body; None if the body is empty or names none."""
    if not body.strip():
        return None
    try:
        values = parse_object(body)
    except ValueError:
        values = {"": None}
    if not set(values) <= {"bundle"} or not isinstance(values.get("bundle", ""), str):
        raise bad_parameter('the body must be empty or {"bundle": "NAME"}')
    name = values.get("bundle")
    return None if name is None else parse_name(name)


async def _in_thread(work: Callable[[], Value]) -> Value:
    """Run blocking work in a daemon thread, which does not keep the process from ending, and return its result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Value] = loop.create_future()

    def resolve(result: list[Value], error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(*result)

    def run() -> None:
        result: list[Value] = []
        error: BaseException | None = None
        try:
            result.append(work())
        except BaseException as caught:
            error = caught
        # Nothing waits on a closed loop.
        if not loop.is_closed():
            loop.call_soon_threadsafe(resolve, result, error)

    threading.Thread(target=run, name="admin", daemon=True).start()
    return await future
