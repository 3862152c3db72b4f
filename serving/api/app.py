"""The HTTP API: an ASGI application without a framework, with a handler for each route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.api import pages
from serving.api.admin import Admin
from serving.api.explanation import as_png, members
from serving.api.model_info import description, identity
from serving.api.model_page import FOLDER, first_page, model_page
from serving.api.openapi.document import document
from serving.api.upload import (
    EXPLAIN_PARAMETERS,
    Head,
    Upload,
    parse_coverage,
    parse_head,
    parse_top_k,
    parse_upload,
    wants_png,
)
from serving.api.v2.protocol import OpenInference
from serving.api.v2.response import protocol_failure
from serving.collect.collector import Collector
from serving.collect.store import Limits, Store
from serving.decoding.pool import Decoders
from serving.http.body import BodyBudget, ClientGoneError, RequestBody, read_body, refusable
from serving.http.connections import HEALTH
from serving.http.content_encoding import decode_body
from serving.http.disconnect import cancel_on_disconnect
from serving.http.errors import RequestError, bad_parameter, internal, out_of_resources, unauthorized, unavailable
from serving.http.response import Answer, as_json, failure
from serving.lifecycle.canary.rollout import Rollout
from serving.lifecycle.explanations import Explanations
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.loading import load_model
from serving.lifecycle.predictions import Members
from serving.lifecycle.refinement import Refinement
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.lifecycle.watcher import Watcher
from serving.settings import Settings
from serving.telemetry.metrics import CONTENT_TYPE
from serving.telemetry.recorder import Recorder
from serving.telemetry.request_context import current

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    Handler = Callable[[Scope, RequestBody], Awaitable[Answer]]
    Route = tuple[str, Handler]
    Classify = Callable[[Upload, ServedModel, float], Awaitable[dict[str, Any]]]

logger = logging.getLogger("bentoml.halftone")

_ADMIN = "/admin/"
"""Prefix of the paths that need the administrator's token instead of an API key."""


class Api:
    """ASGI application for the service's own paths.

    Args:
        settings: the service's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.models = Registry(settings.models)
        self.recorder = Recorder(metrics=settings.metrics)
        self.decoders = Decoders(settings.decoder_processes)
        self.explanations = Explanations(max_pixels=settings.max_pixels)
        self.collector = self._collector(settings)
        self._body_budget = BodyBudget(settings.max_held)
        self._keys = settings.keys
        self._public = HEALTH | set(pages.PAGES) | ({"/metrics"} if settings.metrics_open else set())
        self._routes: dict[str, Route] = {
            "/classify": ("POST", self._post_classify),
            "/classify_batch": ("POST", self._post_classify_batch),
            "/explain": ("POST", self._post_explain),
            "/models": ("GET", self._models),
            "/livez": ("GET", self._livez),
            "/healthz": ("GET", self._livez),
            "/readyz": ("GET", self._readyz),
            "/docs.json": ("GET", self._docs),
            "/openapi.json": ("GET", self._docs),
            "/metrics": ("GET", self._metrics),
        }
        for path in sorted(pages.PAGES):
            self._routes[path] = ("GET", self._page)
        inference = OpenInference(self.models, settings)
        self._routes["/v2"] = ("GET", inference)
        # Paths that hold names: the longest matching prefix selects the handler, for any method.
        self._prefixes: dict[str, Handler] = {
            "/v2/": inference,
            _ADMIN: self._administration(settings),
            pages.FOLDER: self._page_file,
        }
        if settings.reports:
            self._prefixes[FOLDER] = self._model_page

    def _administration(self, settings: Settings) -> Admin:
        load = partial(
            load_model,
            settings=settings,
            recorder=self.recorder,
            decoders=self.decoders,
            collector=self.collector,
        )
        self._hot_swap = HotSwap(self.models, load, self.recorder, keep=settings.keep_previous)
        self._refinement = Refinement(self.models, self._hot_swap, settings)
        rollout = Rollout(self.models, self._hot_swap, self.recorder)
        return Admin(self.models, self._hot_swap, rollout, self.collector, settings.admin_token)

    def _collector(self, settings: Settings) -> Collector | None:
        if not settings.collect:
            return None
        size = round(settings.collect_mb * 2**20)
        limits = Limits(size=size, pictures=settings.collect_pictures, days=settings.collect_days)
        return Collector(
            Store(Path(settings.collect), limits),
            settings.shares,
            max_pixels=settings.max_pixels,
            idle=self.recorder.idle,
            count=self.recorder.collected,
        )

    def watch(self) -> None:
        """Start to reload bundles that change, if the settings say so; to be called once all models are loaded."""
        if self._settings.watch:
            Watcher(self.models, self._hot_swap, self._settings.watch).start()

    def collect(self) -> None:
        """Start to collect pictures, if the settings say so; to be called in the worker."""
        if self.collector:
            self.collector.start()

    def expect_refinement(self) -> None:
        """Say in /readyz that more is to be done until `refine` has ended; to be called before loading."""
        self._refinement.expect()

    def refine(self) -> None:
        """Start to measure what this start could only guess; to be called once the service is ready."""
        self._refinement.start()

    @property
    def paths(self) -> list[str]:
        """Paths of the routes without names in them."""
        return list(self._routes)

    def retire(self) -> None:
        """Fail readiness, but keep serving."""
        self.models.retire()

    def close(self) -> None:
        """Refuse new requests and finish the accepted ones."""
        self._refinement.close()
        self.models.close()
        if self.collector:
            self.collector.close()
        self.explanations.close()
        self.decoders.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; every error becomes a response."""
        body = RequestBody(receive, self._body_budget)
        # The Open Inference Protocol uses another error format.
        as_failure = protocol_failure if scope["path"].startswith("/v2/") else failure
        try:
            answer = await self._dispatch(scope, body)
        except ClientGoneError:
            return
        except RequestError as error:
            answer = as_failure(error)
        except (MemoryError, OSError) as error:
            logger.warning("a request was refused for want of memory or files: %r", error)
            answer = as_failure(out_of_resources(error))
        except Exception:
            # The route and not the path: text of a client could forge lines of the log.
            call = current.get()
            logger.exception("failed on request %s of %s", *((call.id, call.route) if call else ("-", "-")))
            answer = as_failure(internal())
        finally:
            body.release()
        if answer.error:
            self.recorder.refused(answer.error)
        await answer.send(send, head=scope["method"] == "HEAD")

    async def _dispatch(self, scope: Scope, receive: RequestBody) -> Answer:
        if not self.authorized(scope):
            raise unauthorized()
        path, method = scope["path"], "GET" if scope["method"] == "HEAD" else scope["method"]
        route = self._routes.get(path)
        if route is None:
            return await self._handler_of_prefix(path)(scope, receive)
        allowed, handler = route
        if method != allowed:
            raise RequestError(405, "method_not_allowed", f"use {allowed} {path}", {"Allow": allowed})
        return await handler(scope, receive)

    def authorized(self, scope: Scope) -> bool:
        """Return True if the request needs no API key or has a valid one."""
        path = scope["path"]
        return path in self._public or path.startswith((_ADMIN, pages.FOLDER)) or self._keys.allow(scope["headers"])

    def _handler_of_prefix(self, path: str) -> Handler:
        matches = [prefix for prefix in self._prefixes if path.startswith(prefix)]
        if not matches:
            raise RequestError(404, "not_found", f"there is nothing at this path: see {', '.join(self._routes)}")
        return self._prefixes[max(matches, key=len)]

    async def classify(self, images: Sequence[bytes], top_k: int | None, model: str | None = None) -> dict[str, Any]:
        """Classify one image for a caller within this process; returns values for JSON.

        Raises:
            RequestError: there is not exactly one image, or it can't be classified.
        """
        upload = self._own_upload(images, top_k, model)
        return await self.models.answer(upload.model, upload.seconds, partial(self._classify, upload))

    async def classify_batch(
        self, images: Sequence[bytes], top_k: int | None, model: str | None = None
    ) -> dict[str, Any]:
        """Classify several images likewise; a bad image is an error in its own slot.

        Raises:
            RequestError: there are none or too many, or the service can't work on them now.
        """
        upload = self._own_upload(images, top_k, model)
        return await self.models.answer(upload.model, upload.seconds, partial(self._classify_batch, upload))

    def _own_upload(self, images: Sequence[bytes], top_k: int | None, model: str | None) -> Upload:
        parameters = {} if top_k is None else {"top_k": str(top_k)}
        return Upload(list(images), model, parameters, self._settings.deadline)

    async def _classify(self, upload: Upload, model: ServedModel, seconds: float) -> dict[str, Any]:
        if len(upload.images) != 1:
            raise bad_parameter(
                f"send exactly one picture in the field `image`, not {len(upload.images)}: "
                "for several use /classify_batch"
            )
        (result,) = await self._answers(upload, model, seconds)
        if isinstance(result, RequestError):
            raise result
        return identity(model) | result

    async def _classify_batch(self, upload: Upload, model: ServedModel, seconds: float) -> dict[str, Any]:
        most = self._settings.max_images
        if not 1 <= len(upload.images) <= most:
            raise bad_parameter(f"send 1 to {most} pictures in the field `images`, not {len(upload.images)}")
        results = [
            {"error": self._slot(result)} if isinstance(result, RequestError) else result
            for result in await self._answers(upload, model, seconds)
        ]
        return identity(model) | {"results": results}

    async def _answers(self, upload: Upload, model: ServedModel, seconds: float) -> list[Members | RequestError]:
        top_k = parse_top_k(upload.parameters.get("top_k"), len(model.manifest.labels))
        coverage = parse_coverage(upload.parameters.get("coverage"), model.promises)
        return await model.classify(upload.images, top_k, seconds=seconds, coverage=coverage)

    def _slot(self, error: RequestError) -> dict[str, Any]:
        self.recorder.rejected(error.code)
        return error.body()

    async def _post_classify(self, scope: Scope, receive: RequestBody) -> Answer:
        upload = await self._upload(scope, receive, "image", self._head(scope))
        return await self._answered(upload, scope, receive, self._classify)

    async def _post_classify_batch(self, scope: Scope, receive: RequestBody) -> Answer:
        upload = await self._upload(scope, receive, "images", self._head(scope))
        return await self._answered(upload, scope, receive, self._classify_batch)

    async def _answered(self, upload: Upload, scope: Scope, receive: RequestBody, classify: Classify) -> Answer:
        answering = partial(classify, upload)
        work = self.models.answer(upload.model, upload.seconds, answering, scope["headers"])
        return as_json(await cancel_on_disconnect(receive, work))

    async def _post_explain(self, scope: Scope, receive: RequestBody) -> Answer:
        if not self._settings.explain:
            message = "the heat maps are switched off: start the service without HALFTONE_EXPLAIN=0"
            raise RequestError(404, "not_found", message)
        head = parse_head(scope, self._settings.deadline, EXPLAIN_PARAMETERS)
        if refusable(scope, self._settings.max_body):
            self.explanations.check_room(head.seconds)
        upload = await self._upload(scope, receive, "image", head)
        png = wants_png(upload.parameters.get("format"), head.accept)
        with self.models.use(upload.model) as model:
            return await cancel_on_disconnect(receive, self._explain(upload, model, png))

    async def _explain(self, upload: Upload, model: ServedModel, png: bool) -> Answer:
        if len(upload.images) != 1:
            raise bad_parameter(f"send exactly one picture in the field `image`, not {len(upload.images)}")
        label = upload.parameters.get("class")
        explained = await self.explanations.explain(model, upload.images[0], label, seconds=upload.seconds)
        if png:
            return Answer(await asyncio.to_thread(as_png, explained), media_type=b"image/png")
        return as_json(identity(model) | members(explained, model.manifest.labels))

    def _head(self, scope: Scope) -> Head:
        """Parse the head of a classification, and refuse it if there is no room for it, before the body is read."""
        head = parse_head(scope, self._settings.deadline)
        if refusable(scope, self._settings.max_body):
            self._admit(head)
        return head

    async def _upload(self, scope: Scope, receive: RequestBody, field: str, head: Head) -> Upload:
        settings = self._settings
        body = await read_body(receive, head.content_length, limit=settings.max_body, seconds=settings.body_timeout)
        if head.content_encoding:
            body = await decode_body(receive, body, head.content_encoding, limit=settings.max_body)
        return parse_upload(head, body, field)

    def _admit(self, head: Head) -> None:
        """Refuse a request whose model is unknown or has no room in its queue, before the body is read.

        Raises:
            RequestError: 404 or 429.
        """
        # With several models, a form may name the model in its body. While the service stops, connections are closed
        # after their responses, which a client that is still sending would not see.
        if self.models.ready and (head.model is not None or len(self.models.names) == 1):
            self.models.get(head.model).check_room(head.seconds)

    async def _models(self, scope: Scope, receive: RequestBody) -> Answer:
        self._ready()
        return as_json({"models": [description(model) for model in self.models.all()]})

    async def _livez(self, scope: Scope, receive: RequestBody) -> Answer:
        return as_json({"status": "alive"})

    async def _readyz(self, scope: Scope, receive: RequestBody) -> Answer:
        models = self._ready()
        if not self.models.ready:
            raise unavailable("shutting_down", "the service is about to stop: use another replica", retry_after=1)
        names = [model.name for model in models]
        return as_json({"status": "ready"} | identity(models[0]) | {"models": names, "refined": self._refinement.done})

    async def _docs(self, scope: Scope, receive: RequestBody) -> Answer:
        return as_json(document(self._settings))

    async def _metrics(self, scope: Scope, receive: RequestBody) -> Answer:
        if not self._settings.metrics:
            raise RequestError(
                404, "not_found", "the metrics are switched off: start the service without HALFTONE_METRICS=0"
            )
        return Answer(await asyncio.to_thread(self.recorder.exposition), media_type=CONTENT_TYPE)

    async def _page(self, scope: Scope, receive: RequestBody) -> Answer:
        return pages.page(scope["path"])

    async def _model_page(self, scope: Scope, receive: RequestBody) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            raise RequestError(405, "method_not_allowed", f"use GET {FOLDER}NAME", {"Allow": "GET"})
        name, separator, page = scope["path"].removeprefix(FOLDER).partition("/")
        model = self.models.get(name)
        return await asyncio.to_thread(model_page, model.bundle, page) if page else first_page(name, separator)

    async def _page_file(self, scope: Scope, receive: RequestBody) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            raise RequestError(405, "method_not_allowed", f"use GET {pages.FOLDER}", {"Allow": "GET"})
        # In a thread: a small form of a sample photograph is made when it is first asked for.
        answer = await asyncio.to_thread(pages.file, scope["path"])
        if answer is None:
            raise RequestError(404, "not_found", "the page has no such file: open /ui")
        return answer

    def _ready(self) -> list[ServedModel]:
        """Return all models; raise 503 while one of them is missing."""
        return [self.models.get(name) for name in self.models.names]
