"""The Open Inference Protocol, version 2, over REST, for KServe's and Triton's clients (paths under /v2)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from export.runtime import Logits
from models.common.statistics import softmax
from serving.api.v2 import metadata
from serving.api.v2.metadata import IMAGE, LOGITS, PIXELS, PROBABILITIES
from serving.api.v2.request import InferenceRequest, RequestedOutput, malformed, parse
from serving.api.v2.response import HEADER_LENGTH, Output, best_classes, encode
from serving.api.v2.tensors import images, pixels
from serving.http.body import RequestBody, read_body, refusable
from serving.http.content_encoding import decode_body
from serving.http.deadline import allowed_seconds
from serving.http.disconnect import cancel_on_disconnect
from serving.http.errors import RequestError, bad_parameter, unavailable
from serving.http.json_body import parse_object
from serving.http.response import Answer, as_json
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.settings import Settings

if TYPE_CHECKING:
    from starlette.types import Scope

_Work = Callable[[ServedModel, float], Coroutine[Any, Any, Answer]]
"""Makes the response by a version of the model, within some seconds."""
_Run = Callable[[float, _Work], Coroutine[Any, Any, Answer]]

logger = logging.getLogger("bentoml.halftone")

_PATHS = (
    "/v2, /v2/health/live, /v2/health/ready, /v2/repository/index, /v2/models/stats, "
    "/v2/models/NAME[/versions/VERSION] and the same with /ready, /infer, /config or /stats"
)


class OpenInference:
    """Handler of everything under /v2.

    Args:
        models: the models of the service.
        settings: limits and time-outs.
    """

    def __init__(self, models: Registry, settings: Settings) -> None:
        self._models = models
        self._settings = settings

    async def __call__(self, scope: Scope, receive: RequestBody) -> Answer:
        """Serve one request.

        Raises:
            RequestError: the request is wrong, or can't be served now.
            ClientGoneError: the client left.
        """
        match scope["path"].split("/")[2:]:
            case [] | ["health", _] | ["models", "stats"] as parts:
                return _get(scope, self._state(parts))
            case ["repository", "index"]:
                return await self._index(scope, receive)
            case ["models", name, "versions", version, *rest]:
                with self._models.use(name) as model:
                    _check_version(model, version)
                    return await self._dispatch_model(model, rest, scope, receive)
            case ["models", name, "infer"]:
                run = partial(self._models.answer, name, headers=scope["headers"])
                return await self._infer(self._models.get(name), run, scope, receive)
            case ["models", name, *rest]:
                with self._models.use(name) as model:
                    return await self._dispatch_model(model, rest, scope, receive)
        raise _not_found()

    async def _dispatch_model(self, model: ServedModel, rest: list[str], scope: Scope, receive: RequestBody) -> Answer:
        match rest:
            case []:
                return _get(scope, metadata.model_tensors(model))
            case ["ready"]:
                return _get(scope, {"name": model.name, "ready": True})
            case ["config"]:
                return _get(scope, metadata.config(model, self._settings.max_images))
            case ["stats"]:
                return _get(scope, metadata.statistics([model]))
            case ["infer"]:
                return await self._infer(model, lambda seconds, work: work(model, seconds), scope, receive)
        raise _not_found()

    def _state(self, parts: list[str]) -> dict[str, object]:
        """Return what the server says of itself and of all models."""
        match parts:
            case []:
                return metadata.server()
            case ["health", "live"]:
                return {"live": True}
            case ["health", "ready"]:
                return self._ready()
            case ["models", "stats"]:
                return metadata.statistics(self._models.all())
        raise _not_found()

    def _ready(self) -> dict[str, object]:
        if not self._models.ready:
            raise unavailable("not_ready", "the models are being loaded, or the service is stopping", retry_after=2)
        return {"ready": True}

    async def _index(self, scope: Scope, receive: RequestBody) -> Answer:
        headers = _headers(scope)
        _check_post(scope, headers)
        body = await self._read(receive, headers)
        try:
            only_ready = parse_object(body or b"{}").get("ready", False)
        except ValueError:
            only_ready = None
        if not isinstance(only_ready, bool):
            raise malformed("the body of an index request is empty or a JSON object whose `ready` is true or false")
        return as_json(metadata.index(self._models, only_ready=only_ready))

    async def _infer(self, model: ServedModel, run: _Run, scope: Scope, receive: RequestBody) -> Answer:
        """Run an inference request.

        Args:
            model: the active version, which must have room in its queue.
            run: lets the version whose turn it is answer.
            scope: of the request.
            receive: its body.
        """
        headers = _headers(scope)
        seconds = allowed_seconds(headers.get("x-request-timeout"), self._settings.deadline)
        _check_post(scope, headers)
        # Checked before the body is read, which costs most of what a refused request costs.
        if self._models.ready and refusable(scope, self._settings.max_body):
            model.check_room(seconds)
        body = await self._read(receive, headers)
        request = parse(body, headers.get(HEADER_LENGTH.lower()))
        work = run(seconds, partial(self._inferred, request, _check_outputs(request)))
        return await cancel_on_disconnect(receive, work)

    async def _inferred(
        self, request: InferenceRequest, requested: list[RequestedOutput], model: ServedModel, seconds: float
    ) -> Answer:
        logits = await self._logits(model, request, seconds)
        head = {"model_name": model.name, "model_version": model.version}
        if request.id is not None:
            head["id"] = request.id
        return encode(head, _outputs(model, requested, logits))

    async def _read(self, receive: RequestBody, headers: Mapping[str, str]) -> bytes:
        settings = self._settings
        body = await read_body(
            receive, headers.get("content-length"), limit=settings.max_body, seconds=settings.body_timeout
        )
        return await decode_body(receive, body, headers.get("content-encoding", ""), limit=settings.max_body)

    async def _logits(self, model: ServedModel, request: InferenceRequest, max_seconds: float) -> Logits:
        seconds = min(max_seconds, request.seconds or max_seconds)
        try:
            async with asyncio.timeout(seconds):
                return await self._run(model, request, seconds)
        except TimeoutError:
            raise RequestError(504, "deadline_passed", f"the answer was not ready within {seconds:g} s") from None

    async def _run(self, model: ServedModel, request: InferenceRequest, seconds: float) -> Logits:
        names = [tensor.name for tensor in request.inputs]
        if names not in ([PIXELS], [IMAGE]):
            raise bad_parameter(f"send exactly one input, {PIXELS} or {IMAGE}, not {str(names)[:200]}")
        (tensor,) = request.inputs
        size, max_images = model.manifest.input.size, self._settings.max_images
        if tensor.name == PIXELS:
            return await model.logits_of_pixels(pixels(tensor, (size, size, 3), max_images), seconds=seconds)
        return np.stack(_rows(await model.logits_of_files(images(tensor, max_images), seconds=seconds)))


def _check_post(scope: Scope, headers: Mapping[str, str]) -> None:
    if scope["method"] != "POST":
        raise RequestError(405, "method_not_allowed", f"use POST {scope['path'][:200]}", {"Allow": "POST"})


def _check_version(model: ServedModel, version: str) -> None:
    if version != model.version:
        raise RequestError(
            404, "model_not_found", f"the version of {model.name} here is {model.version}, not {version[:50]!r}"
        )


def _rows(results: list[Logits | RequestError]) -> list[Logits]:
    """Return the logits of all images; raise the first error, as the protocol has no room for one image's own."""
    rows: list[Logits] = []
    for index, result in enumerate(results):
        if isinstance(result, RequestError):
            where = f"picture {index} of {len(results)}: " if len(results) > 1 else ""
            raise RequestError(result.status, result.code, where + result.message, result.headers)
        rows.append(result)
    return rows


def _check_outputs(request: InferenceRequest) -> list[RequestedOutput]:
    """Return the requested outputs; they are checked before anything is computed."""
    outputs = request.outputs or [RequestedOutput(name, request.binary) for name in (LOGITS, PROBABILITIES)]
    names = [output.name for output in outputs]
    if not set(names) <= {LOGITS, PROBABILITIES} or len(set(names)) != len(names):
        raise bad_parameter(f"the outputs are {LOGITS} and {PROBABILITIES}, each at most once, not {str(names)[:200]}")
    for output in outputs:
        if output.classes is not None and output.classes < 1:
            raise bad_parameter(f"classification must be a whole number from 1 on, not {output.classes}")
    return outputs


def _outputs(model: ServedModel, requested: list[RequestedOutput], logits: Logits) -> list[Output]:
    manifest = model.manifest
    values = {LOGITS: logits}
    if any(output.name == PROBABILITIES for output in requested):
        values[PROBABILITIES] = softmax(logits, manifest.temperature).astype(np.float32)
    order = np.argsort(-logits, axis=1, kind="stable") if any(output.classes for output in requested) else None
    outputs = []
    for output in requested:
        if output.classes and order is not None:
            count = min(output.classes, len(manifest.labels))
            texts, shape = best_classes(values[output.name], order, manifest.labels, count)
            outputs.append(Output(output.name, texts, shape, output.binary))
        else:
            outputs.append(Output(output.name, values[output.name], logits.shape, output.binary))
    return outputs


def _get(scope: Scope, value: Mapping[str, object]) -> Answer:
    if scope["method"] not in ("GET", "HEAD"):
        raise RequestError(405, "method_not_allowed", f"use GET {scope['path'][:200]}", {"Allow": "GET"})
    return as_json(value)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _not_found() -> RequestError:
    return RequestError(404, "not_found", f"there is nothing at this path: see {_PATHS}")
