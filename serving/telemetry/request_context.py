"""Facts about the current request, collected for its log line and the labels of its metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from random import getrandbits
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.telemetry.spans import Parent

HEADER = b"x-request-id"

# Visible ASCII without quotes and backslashes, so that an id can end neither a field nor a line of the log.
_WELL_FORMED = re.compile(rb"[!#-&(-\[\]-_a-~]{1,128}")


@dataclass(eq=False, slots=True)
class Stages:
    """Where the time of a request goes, in seconds, and its span if it is traced; equal only to itself."""

    parent: Parent | None = None
    queue: float = 0.0
    decode: float = 0.0
    model: float = 0.0

    def header(self) -> bytes:
        """Return the value of the header Server-Timing (https://www.w3.org/TR/server-timing/), in milliseconds."""
        milliseconds = self.decode * 1e3, self.queue * 1e3, self.model * 1e3
        return b"decode;dur=%.2f, queue;dur=%.2f, model;dur=%.2f" % milliseconds


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

    stages: Stages | None = None
    """Its times in the model; None unless a model works on it."""

    def timing(self) -> bytes | None:
        """Return the header Server-Timing of a request for one image that the model ran on; None for any other one."""
        return self.stages.header() if self.items == 1 and self.stages and self.stages.model else None


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
