"""OpenTelemetry spans for what has just ended, as children of the span of the request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import TracerProvider

_SECOND = 1_000_000_000


@dataclass(frozen=True, eq=False, slots=True)
class Parent:
    """The traced request that later spans belong to; equal only to itself."""

    context: Context


class Spans:
    """Makes spans.

    Args:
        provider: where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("halftone")

    def parent(self) -> Parent | None:
        """The span of this task's request, if it is sampled."""
        span = trace.get_current_span()
        if not span.get_span_context().trace_flags.sampled:
            return None
        return Parent(trace.set_span_in_context(span))

    def trace_id(self) -> str:
        """The trace of this task's request as 32 hexadecimal digits; empty where it is not sampled."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.trace_flags.sampled else ""

    def ended(self, name: str, seconds: float, parent: Parent, attributes: Mapping[str, str | int]) -> None:
        """Record a span of this length that ends now; may be called from any thread."""
        end = time.time_ns()
        start = end - round(seconds * _SECOND)
        self._tracer.start_span(name, context=parent.context, attributes=attributes, start_time=start).end(end)
