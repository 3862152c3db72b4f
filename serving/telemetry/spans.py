"""OpenTelemetry spans for decoding, waiting and inference, as children of the span that BentoML opens for a request."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import TracerProvider

_SECOND = 1_000_000_000


@dataclass(frozen=True, eq=False, slots=True)
class Parent:
    """The traced request that later spans belong to; equal only to itself."""

    context: Context


class Spans:
    """Makes spans of what has just ended.

    Args:
        provider: where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace

        self._tracer = provider.get_tracer("halftone")
        self._trace = trace

    def parent(self) -> Parent | None:
        """The span of this task's request, if it is sampled."""
        span = self._trace.get_current_span()
        if not span.get_span_context().trace_flags.sampled:
            return None
        return Parent(self._trace.set_span_in_context(span))

    def ended(self, name: str, seconds: float, parent: Parent, model: str, variant: str, items: int = 1) -> None:
        """Record a span of this length that ends now; to be called from any thread."""
        end = time.time_ns()
        span = self._tracer.start_span(
            name,
            context=parent.context,
            attributes={"halftone.model": model, "halftone.variant": variant, "halftone.items": items},
            start_time=end - round(seconds * _SECOND),
        )
        span.end(end)
