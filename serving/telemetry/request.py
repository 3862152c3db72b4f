"""What is known of the request that is being answered, for its log line and its labels."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Call:
    """One HTTP request."""

    id: str
    """Its X-Request-Id: at most 128 visible ASCII characters without quotes or backslashes."""

    route: str
    """The known path or template that it met, or "other"."""

    model: str = ""
    """Name of the loaded model that works on it, or empty."""

    variant: str = ""
    """Variant of that model."""

    items: int = 0
    """Pictures that it asks about."""

    received: int = 0
    """Bytes of its body."""

    error: str = ""
    """Error code of its answer, or empty."""


current: ContextVar[Call | None] = ContextVar("halftone_call", default=None)
"""The request of this task; None outside of requests."""
