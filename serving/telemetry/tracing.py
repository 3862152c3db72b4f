"""OpenTelemetry: its middleware opens a request's span and reads `traceparent`, BentoML exports; we add children."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, cast

from models.errors import HalftoneError
from serving.gateway import ASGIApp
from serving.settings import Settings
from serving.telemetry.recorder import Recorder

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def tracing_options(settings: Settings) -> dict[str, Any]:
    """The option `tracing` of @bentoml.service."""
    # BentoML's own middleware is behind ours, and would open a second span for what is passed on to it.
    if not settings.trace_endpoint:
        return {"excluded_urls": [".*"]}
    return {
        "excluded_urls": [".*"],
        "exporter_type": "otlp",
        "sample_rate": settings.trace_sample,
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
    return cast(ASGIApp, spanned)


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False
