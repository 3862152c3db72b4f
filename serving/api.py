"""The HTTP API: routes, parameters, answers and errors (an ASGI application without a framework)."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl

from models.preprocess import ImageError
from models.sniff import image_format
from serving.body import ClientGoneError, Part, Receive, parse_form, read_body
from serving.classifier import Classifier, Prediction
from serving.errors import RequestError, bad_parameter, from_image_error, internal, unavailable
from serving.openapi import document
from serving.settings import Settings
from serving.workers import Workers

logger = logging.getLogger("bentoml.halftone")

Scope = Mapping[str, Any]
Send = Callable[[Any], Awaitable[None]]

DEFAULT_TOP_K = 5
_LOADING_RETRY = 2
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob:; connect-src 'self'"
)


@dataclass(frozen=True)
class Answer:
    """A finished HTTP response."""

    content: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    headers: Mapping[str, str] | None = None

    async def send(self, send: Send, *, head: bool) -> None:
        """Write it; without its content for a HEAD request."""
        extra = [(name.lower().encode(), value.encode()) for name, value in (self.headers or {}).items()]
        length = str(len(self.content)).encode()
        headers = [(b"content-type", self.media_type), (b"content-length", length), *extra]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if head else self.content})


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON answer."""
    return Answer(json.dumps(value, ensure_ascii=False).encode(), status, headers=headers)


class Api:
    """Everything under the service's own paths.

    Args:
        settings: limits and time-outs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers = Workers(settings.worker_threads, settings.queue)
        self._classifier: Classifier | None = None
        self._routes: dict[str, tuple[str, Callable[[Scope, Receive], Awaitable[Answer]]]] = {
            "/classify": ("POST", self._post_classify),
            "/classify_batch": ("POST", self._post_classify_batch),
            "/models": ("GET", self._models),
            "/livez": ("GET", self._livez),
            "/healthz": ("GET", self._livez),
            "/readyz": ("GET", self._readyz),
            "/docs.json": ("GET", self._docs),
            "/ui": ("GET", self._page),
        }

    def publish(self, classifier: Classifier) -> None:
        """Answer with this model from now on."""
        self._classifier = classifier

    def close(self) -> None:
        """Finish what was accepted and take nothing new."""
        self._classifier = None
        self._workers.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, whatever happens inside."""
        try:
            answer = await self._dispatch(scope, receive)
        except ClientGoneError:
            return
        except RequestError as error:
            answer = _failure(error)
        except Exception:
            logger.exception("failed on %s %s", scope["method"], scope["path"])
            answer = _failure(internal())
        await answer.send(send, head=scope["method"] == "HEAD")

    async def _dispatch(self, scope: Scope, receive: Receive) -> Answer:
        path, method = scope["path"], "GET" if scope["method"] == "HEAD" else scope["method"]
        if path not in self._routes:
            raise RequestError(404, "not_found", f"there is nothing at this path: see {', '.join(self._routes)}")
        allowed, handler = self._routes[path]
        if method != allowed:
            raise RequestError(405, "method_not_allowed", f"use {allowed} {path}", {"Allow": allowed})
        return await handler(scope, receive)

    async def classify(self, images: Sequence[bytes], top_k: int) -> dict[str, Any]:
        """The answer to one picture, as JSON-ready values.

        Raises:
            RequestError: it is not exactly one picture, or it can't be answered.
        """
        if len(images) != 1:
            raise bad_parameter(
                f"send exactly one picture in the field `image`, not {len(images)}: for several use /classify_batch"
            )
        classifier = self.ready()
        (result,) = await self._work(classifier, images, top_k)
        if isinstance(result, RequestError):
            raise result
        return head(classifier) | {"predictions": result}

    async def classify_batch(self, images: Sequence[bytes], top_k: int) -> dict[str, Any]:
        """The answer to several pictures, as JSON-ready values; a bad one is an error in its own slot.

        Raises:
            RequestError: there are none or too many, or they can't be worked on now.
        """
        if not 1 <= len(images) <= self._settings.max_images:
            raise bad_parameter(
                f"send 1 to {self._settings.max_images} pictures in the field `images`, not {len(images)}"
            )
        classifier = self.ready()
        results = [
            {"error": result.body()} if isinstance(result, RequestError) else {"predictions": result}
            for result in await self._work(classifier, images, top_k)
        ]
        return head(classifier) | {"results": results}

    async def _work(
        self, classifier: Classifier, images: Sequence[bytes], top_k: int
    ) -> list[list[Prediction] | RequestError]:
        jobs = [partial(classifier.classify, image, top_k) for image in images]
        results = await self._workers.run(jobs, seconds=self._settings.deadline)
        return [_per_item(result) if isinstance(result, BaseException) else result for result in results]

    async def _post_classify(self, scope: Scope, receive: Receive) -> Answer:
        return as_json(await self.classify(*await self._upload(scope, receive, "image")))

    async def _post_classify_batch(self, scope: Scope, receive: Receive) -> Answer:
        return as_json(await self.classify_batch(*await self._upload(scope, receive, "images")))

    async def _upload(self, scope: Scope, receive: Receive, field: str) -> tuple[list[bytes], int]:
        """The pictures that a client sent, and how many classes it asks for."""
        classes = len(self.ready().manifest.labels)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        settings = self._settings
        body = await read_body(
            receive, headers.get(b"content-length"), limit=settings.max_body, seconds=settings.body_timeout
        )
        images, parameters = _parts(headers.get(b"content-type", ""), body, field)
        return images, _top_k([*query, *parameters], classes)

    async def _models(self, scope: Scope, receive: Receive) -> Answer:
        return as_json({"models": [_description(self.ready())]})

    async def _livez(self, scope: Scope, receive: Receive) -> Answer:
        return as_json({"status": "alive"})

    async def _readyz(self, scope: Scope, receive: Receive) -> Answer:
        return as_json({"status": "ready"} | head(self.ready()))

    async def _docs(self, scope: Scope, receive: Receive) -> Answer:
        return as_json(document(self._settings))

    async def _page(self, scope: Scope, receive: Receive) -> Answer:
        page = (files("serving") / "page.html").read_bytes()
        return Answer(page, media_type=b"text/html; charset=utf-8", headers={"Content-Security-Policy": _PAGE_POLICY})

    def ready(self) -> Classifier:
        """The loaded model.

        Raises:
            RequestError: 503 while there is none.
        """
        if self._classifier is None:
            raise unavailable(
                "not_ready",
                "the model is being loaded, or the service is stopping: try again",
                retry_after=_LOADING_RETRY,
            )
        return self._classifier


def _failure(error: RequestError) -> Answer:
    return as_json({"error": error.body()}, error.status, error.headers)


def _per_item(error: BaseException) -> RequestError:
    if isinstance(error, ImageError):
        return from_image_error(error)
    if isinstance(error, MemoryError):
        return unavailable("out_of_memory", "there is no memory for this picture now: try again", retry_after=1)
    logger.error("failed to classify a picture", exc_info=error)
    return internal()


def _parts(content_type: str, body: bytes, field: str) -> tuple[list[bytes], list[tuple[str, str]]]:
    """The pictures and the text parameters of a form, or the picture that is the body itself."""
    if content_type.lower().startswith("multipart/"):
        parts = parse_form(content_type, body)
        images = [part.data for part in parts if part.name == field]
        if not images:
            raise bad_parameter(f"the form has no field `{field}`: send the picture there (curl -F {field}=@photo.jpg)")
        return images, [(part.name, _text(part)) for part in parts if part.name != field]
    # curl labels any body as a web form: what counts is what the bytes are.
    declared = content_type.partition(";")[0].strip().lower()
    if image_format(body) or not declared or declared == "application/octet-stream" or declared.startswith("image/"):
        return [body], []
    raise RequestError(
        415,
        "unsupported_media_type",
        f"the body is {declared}, not a picture: send a JPEG, PNG or WebP file as the body, or as the multipart field "
        f"`{field}` (curl -F {field}=@photo.jpg)",
    )


def _text(part: Part) -> str:
    if part.is_file:
        raise bad_parameter(f"a file was sent in the unknown field {part.name[:50]!r}")
    return part.data.decode("utf-8", "replace")


def _top_k(parameters: Sequence[tuple[str, str]], classes: int) -> int:
    """The one parameter that there is; an unknown or repeated one would else be ignored in silence."""
    unknown = [name for name, _ in parameters if name != "top_k"]
    if unknown:
        raise bad_parameter(f"unknown parameter {unknown[0][:50]!r}: the only one is top_k")
    if not parameters:
        return min(DEFAULT_TOP_K, classes)
    if len(parameters) > 1:
        raise bad_parameter("top_k was given more than once")
    text = parameters[0][1].strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= classes):
        raise bad_parameter(f"top_k must be a whole number from 1 to {classes}, not {text[:50]!r}")
    return int(text)


def head(classifier: Classifier) -> dict[str, Any]:
    """What every answer says about the model that made it."""
    return {"model": classifier.name, "version": classifier.version, "variant": classifier.variant}


def _description(classifier: Classifier) -> dict[str, Any]:
    manifest, record = classifier.manifest, classifier.record
    return {
        "name": classifier.name,
        "version": classifier.version,
        "variant": classifier.variant,
        "architecture": manifest.architecture,
        "trained": manifest.trained,
        "source": manifest.source,
        "license": manifest.license,
        "parity": {
            "verdict": record.verdict,
            "date": record.date,
            "runtime": record.runtime,
            "reference": record.reference,
            "data": record.data,
            "figures": record.figures,
        },
        "input": manifest.input.to_dict(),
        "labels": list(manifest.labels),
    }
