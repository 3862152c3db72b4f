"""OpenTelemetry: its middleware opens a request's span and reads `traceparent`, BentoML exports; we add children."""

from __future__ import annotations

import random
import re
from importlib.util import find_spec
from typing import Any, cast

from models.common.errors import HalftoneError
from serving.api.gateway import ASGIApp
from serving.http.body import Receive
from serving.http.response import Scope, Send
from serving.settings import Settings
from serving.telemetry.recorder import Recorder

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
"""https://www.w3.org/TR/trace-context/#traceparent-header; the group holds the flags."""


def tracing_options(settings: Settings) -> dict[str, Any]:
    """The option `tracing` of @bentoml.service."""
    # BentoML's own middleware is behind ours, and would open a second span for what is passed on to it.
    if not settings.trace_endpoint:
        return {"excluded_urls": [".*"]}
    return {
        "excluded_urls": [".*"],
        "exporter_type": "otlp",
        # `Sampled` decides; what it lets through is recorded.
        "sample_rate": 1.0,
        "otlp": {"protocol": "http", "endpoint": settings.trace_endpoint},
    }


def check_tracing(settings: Settings) -> None:
    """Whether what the settings ask for is installed.

    Raises:
        HalftoneError: the exporter is missing.
    """
    if settings.trace_endpoint and not _installed():
        raise HalftoneError("HALFTONE_TRACE_ENDPOINT needs the OTLP exporter: pip install 'halftone[tracing]'")


def traced(app: ASGIApp, settings: Settings, recorder: Recorder) -> ASGIApp:
    """The application with a span around each request, and a recorder that adds children to it, where tracing is on.

    To be called in a worker of BentoML.
    """
    if not settings.trace_endpoint:
        return app
    # BentoML has no public name for its provider, and doesn't make it OpenTelemetry's global one.
    from bentoml._internal.configuration.containers import BentoMLContainer
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    from serving.telemetry.spans import Spans

    provider = BentoMLContainer.tracer_provider.get()
    recorder.trace(Spans(provider))
    # Spans for every message of a request would be most of the cost and tell nothing.
    spanned: Any = OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    return Sampled(app, cast(ASGIApp, spanned), share=settings.trace_sample)


class Sampled:
    """Sends the requests that are traced one way and the others another way, which costs those next to nothing.

    OpenTelemetry's own samplers are asked when the middleware has done its work: a request that they leave out costs
    half of what a traced one does.

    Args:
        app: for requests that are not traced.
        spanned: for those that are.
        share: of the requests to trace, 0 to 1, of those whose `traceparent` doesn't decide it.
    """

    def __init__(self, app: ASGIApp, spanned: ASGIApp, *, share: float) -> None:
        self._app = app
        self._spanned = spanned
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        app = self._spanned if scope["type"] == "http" and self._chosen(scope["headers"]) else self._app
        await app(scope, receive, send)

    def _chosen(self, headers: list[tuple[bytes, bytes]]) -> bool:
        for name, value in headers:
            if name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
                return bool(int(match[1], 16) & 1)
        return random.random() < self._share


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False
