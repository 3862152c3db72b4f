"""OpenTelemetry spans for finished stages, as children of the span of their request."""

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
    """The span of a traced request, parent of later ones; equal only to itself."""

    context: Context


class Spans:
    """Makes spans of finished stages.

    Args:
        provider: exports them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("halftone")

    def parent(self) -> Parent | None:
        """Return the span of this task's request; None if the request is not sampled."""
        span = trace.get_current_span()
        if not span.get_span_context().trace_flags.sampled:
            return None
        return Parent(trace.set_span_in_context(span))

    def trace_id(self) -> str:
        """Return the trace id of this task's request, 32 hexadecimal digits; empty if the request is not sampled."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.trace_flags.sampled else ""

    def ended(self, name: str, seconds: float, parent: Parent, attributes: Mapping[str, str | int]) -> None:
        """Record a span that ends now and took `seconds`; may be called from any thread."""
        end = time.time_ns()
        start = end - round(seconds * _SECOND)
        self._tracer.start_span(name, context=parent.context, attributes=attributes, start_time=start).end(end)
