"""Distributed tracing with OpenTelemetry.

OpenTelemetry's middleware opens a span for a request and reads `traceparent`, the recorder adds child spans, and
BentoML exports them.
"""

from __future__ import annotations

import random
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from models.common.errors import HalftoneError
from serving.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from starlette.types import ASGIApp, Receive, Scope, Send

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
"""https://www.w3.org/TR/trace-context/#traceparent-header; the group is the flags."""


def tracing_options(endpoint: str) -> dict[str, Any]:
    """Return the option `tracing` of @bentoml.service.

    Args:
        endpoint: URL for OTLP over HTTP; empty: no tracing.
    """
    # BentoML's own middleware is inside ours, and would open a second span for a request that reaches it.
    if not endpoint:
        return {"excluded_urls": [".*"]}
    return {
        "excluded_urls": [".*"],
        "exporter_type": "otlp",
        # `Sampled` selects the requests; all that it selects are recorded.
        "sample_rate": 1.0,
        "otlp": {"protocol": "http", "endpoint": endpoint},
    }


def check_exporter() -> None:
    """Check that the exporter for OTLP over HTTP is installed.

    Raises:
        HalftoneError: it is not.
    """
    if not _installed():
        raise HalftoneError("HALFTONE_TRACE_ENDPOINT needs the OTLP exporter: `pip install '.[tracing]'`")


def traced(app: ASGIApp, recorder: Recorder, provider: TracerProvider, *, share: float) -> ASGIApp:
    """Return the application with a span around each sampled request.

    Args:
        app: the application.
        recorder: adds child spans from now on.
        provider: makes and exports the spans.
        share: of the requests to sample, see `Sampled`.
    """
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    from serving.telemetry.spans import Spans

    recorder.trace(Spans(provider))
    # Spans for every message of a request would be most of the cost and add no information.
    spanned: Any = OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])
    return Sampled(app, spanned, share=share)


_UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Paths that machines ask for every few seconds: their spans would be most of all spans, and tell nothing."""


class Sampled:
    """ASGI application that routes sampled requests through the tracing middleware, and the others around it.

    Health checks and scrapes are never sampled.

    OpenTelemetry calls its own samplers after the middleware's work: a request that they leave out costs half of what a
    traced one does. Here it costs next to nothing.

    Args:
        app: for requests that are not traced.
        spanned: for traced requests.
        share: part of the requests without a valid `traceparent` to trace, 0 to 1; a valid one decides for its request.
    """

    def __init__(self, app: ASGIApp, spanned: ASGIApp, *, share: float) -> None:
        self._app = app
        self._spanned = spanned
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one connection."""
        sampled = scope["type"] == "http" and scope["path"] not in _UNTRACED and self._sampled(scope["headers"])
        app = self._spanned if sampled else self._app
        await app(scope, receive, send)

    def _sampled(self, headers: list[tuple[bytes, bytes]]) -> bool:
        for name, value in headers:
            if name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
                return bool(int(match[1], 16) & 1)
        return random.random() < self._share


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False
