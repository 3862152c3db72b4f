"""Operators' requests under /admin: what is loaded, load anew, roll back (docs/hot-swap.md)."""

from __future__ import annotations

import asyncio
import hmac
import json
import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from models.bundle.store import check_name
from models.common.errors import HalftoneError
from serving.http.body import RequestBody, read_body
from serving.http.errors import RequestError, bad_parameter
from serving.http.response import Answer, Scope, as_json
from serving.lifecycle.hot_swap import HotSwap, Swap
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel

_MAX_BODY = 2**16
_BODY_SECONDS = 10.0
_PATHS = "GET /admin/models, POST /admin/models/NAME/load, POST /admin/models/NAME/rollback"


class Admin:
    """Answers everything under /admin/, to those who bear the token.

    Args:
        models: what is served.
        swaps: replaces models.
        token: the secret; empty: everything is refused.
    """

    def __init__(self, models: Registry, swaps: HotSwap, token: str) -> None:
        self._models = models
        self._swaps = swaps
        self._token = token

    async def __call__(self, scope: Scope, receive: RequestBody) -> Answer:
        """Answer one request.

        Raises:
            RequestError: 401 without the token, 404 where there is none or nothing at this path, and those of `HotSwap`.
        """
        self._authorise(scope)
        match scope["path"].split("/")[2:]:
            case ["models"]:
                _only(scope, "GET")
                return as_json({"models": [self._state(model) for model in self._models.all()]})
            case ["models", name, "load"]:
                _only(scope, "POST")
                bundle = _bundle(await read_body(receive, None, limit=_MAX_BODY, seconds=_BODY_SECONDS))
                return as_json(_told(await _in_thread(lambda: self._swaps.load(name, bundle))))
            case ["models", name, "rollback"]:
                _only(scope, "POST")
                return as_json(_told(await _in_thread(lambda: self._swaps.rollback(name))))
        raise RequestError(404, "not_found", f"there is nothing at this path: there are {_PATHS}")

    def _authorise(self, scope: Scope) -> None:
        if not self._token:
            raise RequestError(
                404, "not_found", "/admin is switched off: start the service with HALFTONE_ADMIN_TOKEN=SECRET"
            )
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, secret = given.partition(b" ")
        # Of digests, whose length and bytes say nothing about the secret.
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
        return _described(model) | {
            "previous": _described(previous) if previous else None,
            "swapping": self._swaps.is_busy(model.name),
        }


def _described(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "version": model.version,
        "variant": model.variant,
        "bundle": model.bundle,
        "loaded_at": model.loaded_at.isoformat(timespec="seconds"),
    }


def _told(swap: Swap) -> dict[str, Any]:
    return _described(swap.model) | {"replaced": _described(swap.replaced), "seconds": round(swap.seconds, 3)}


def _only(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise RequestError(405, "method_not_allowed", f"use {method} {scope['path'][:200]}", {"Allow": method})


def _bundle(body: bytes) -> str | None:
    """The bundle that a request names, if it does."""
    if not body.strip():
        return None
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not set(values) <= {"bundle"} or not isinstance(values.get("bundle", ""), str):
        raise bad_parameter('the body must be empty or {"bundle": "NAME"}')
    name = values.get("bundle")
    if name is not None:
        try:
            check_name(name)
        except HalftoneError as error:
            raise bad_parameter(str(error)[:300]) from None
    return name


async def _in_thread(work: Callable[[], Swap]) -> Swap:
    """The result of blocking work, in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Swap] = loop.create_future()

    def finish(result: Swap | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        elif result is not None:
            done.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        # A closed loop has nobody left who waits.
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="swap", daemon=True).start()
    return await done
