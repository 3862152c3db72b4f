"""What is known of the request that is being answered, for its log line and its labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits

HEADER = b"x-request-id"

# Visible ASCII without quotes and backslashes: nothing that could end a field or a line of a log.
_WELL_FORMED = re.compile(rb"[!#-&(-\[\]-_a-~]{1,128}")


@dataclass(slots=True)
class Call:
    """One HTTP request."""

    id: str
    """Its X-Request-Id: at most 128 visible ASCII characters without quotes or backslashes."""

    route: str
    """The known path or template that it met, or "other"."""

    status: int = 499
    """HTTP status of the answer; 499 as long as there is none."""

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

    trace: str = ""
    """Its OpenTelemetry trace in hexadecimal digits, or empty."""


current: ContextVar[Call | None] = ContextVar("halftone_call", default=None)
"""The request of this task; None outside of requests."""


def note_received(size: int) -> None:
    """The current request's body has arrived, with so many bytes."""
    call = current.get()
    if call is not None:
        call.received = size


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's X-Request-Id where it is well formed, else one of 32 random hexadecimal digits."""
    for name, value in headers:
        if name == HEADER and _WELL_FORMED.fullmatch(value):
            return value.decode()
    return f"{getrandbits(128):032x}"
