"""OpenTelemetry through BentoML: it opens the span of a request, reads `traceparent` and exports; we add children."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from models.errors import HalftoneError
from serving.settings import Settings
from serving.telemetry.recorder import Recorder

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def tracing_options(settings: Settings) -> dict[str, Any]:
    """The option `tracing` of @bentoml.service."""
    if not settings.trace_endpoint:
        # BentoML opens a span for every request even where nothing exports it; excluded paths cost a few microseconds.
        return {"excluded_urls": [".*"]}
    return {
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


def start_tracing(settings: Settings, recorder: Recorder) -> None:
    """Let the recorder make spans where tracing is on; to be called in a worker of BentoML."""
    if settings.trace_endpoint:
        # BentoML has no public name for its provider, and doesn't make it OpenTelemetry's global one.
        from bentoml._internal.configuration.containers import BentoMLContainer

        from serving.telemetry.spans import Spans

        recorder.trace(Spans(BentoMLContainer.tracer_provider.get()))


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False
