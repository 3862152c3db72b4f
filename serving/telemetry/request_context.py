"""Facts about the current request, collected for its log line and the labels of its metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits

HEADER = b"x-request-id"

# Visible ASCII without quotes and backslashes, so that an id can end neither a field nor a line of the log.
_WELL_FORMED = re.compile(rb"[!#-&(-\[\]-_a-~]{1,128}")


@dataclass(slots=True)
class Call:
    """One HTTP request."""

    id: str
    """X-Request-Id: at most 128 visible ASCII characters without quotes or backslashes."""

    route: str
    """The known path or template that its path matches, or "other"."""

    status: int = 499
    """HTTP status of the response; 499 while there is none."""

    model: str = ""
    """Name of the model that processes it, or empty."""

    variant: str = ""
    """Variant of this model."""

    items: int = 0
    """Number of its images."""

    received: int = 0
    """Bytes of its body."""

    error: str = ""
    """Error code of its response, or empty."""

    trace: str = ""
    """Id of its OpenTelemetry trace in hexadecimal digits, or empty."""


current: ContextVar[Call | None] = ContextVar("halftone_call", default=None)
"""The request of this task; None outside a request."""


def note_received(size: int) -> None:
    """Record that the current request's body has arrived, `size` bytes."""
    call = current.get()
    if call is not None:
        call.received = size


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's X-Request-Id if it is well formed, else 32 random hexadecimal digits."""
    for name, value in headers:
        if name == HEADER and _WELL_FORMED.fullmatch(value):
            return value.decode()
    return f"{getrandbits(128):032x}"
