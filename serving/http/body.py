"""A request's body: read with a limit of its own and one that all requests share, and within a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from serving.http.errors import RequestError
from serving.telemetry.request_context import note_received

Receive = Callable[[], Awaitable[Any]]

_DRAIN = 4
_CLOSE = {"Connection": "close"}


class ClientGoneError(Exception):
    """The client closed the connection; there is nobody to answer."""


class BodyBudget:
    """How much all bodies together may hold.

    Args:
        limit: most bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class RequestBody:
    """The ASGI channel of one request, with what its body holds of the memory; used on the event loop alone.

    Args:
        receive: the channel.
        memory: that it shares with the other requests.
    """

    def __init__(self, receive: Receive, memory: BodyBudget) -> None:
        self._receive = receive
        self._memory = memory
        self._held = 0

    def __call__(self) -> Awaitable[Any]:
        """The channel's next message."""
        return self._receive()

    def hold(self, size: int) -> bool:
        """Hold so many bytes more; False where they are too many, and nothing changes."""
        if self._memory.held + size > self._memory.limit:
            return False
        self._memory.held += size
        self._held += size
        return True

    def release(self) -> None:
        """Hold nothing more."""
        self._memory.held -= self._held
        self._held = 0


async def read_body(intake: RequestBody, declared: str | None, *, limit: int, seconds: float) -> bytes:
    """The whole body; it is held until the intake's release.

    Args:
        intake: the request's channel.
        declared: its Content-Length header.
        limit: most bytes to take.
        seconds: time that it may take to arrive.

    Raises:
        RequestError: 413 over the limit, 429 where all bodies together are too large, 408 where it takes too long.
        ClientGoneError: the client left.
    """
    try:
        async with asyncio.timeout(seconds):
            body = await _read(intake, declared, limit)
    except TimeoutError:
        raise RequestError(
            408, "body_too_slow", f"the body did not arrive within {seconds:g} s: send it faster, or smaller", _CLOSE
        ) from None
    note_received(len(body))
    return body


def refusable(scope: Mapping[str, Any], limit: int) -> bool:
    """Whether a request may be answered before its body is read.

    Not where the connection is closed after the answer: a client that is still sending would see a reset and not the
    answer. Nor where it waits to be told to send: what it sends next on the connection would be taken for the body.
    What is over the limit is told so, whatever else is wrong.

    Args:
        scope: of the request.
        limit: bytes of a body.
    """
    if scope.get("http_version") != "1.1":
        return False
    for name, value in scope["headers"]:
        if name == b"connection" and b"close" in value.lower():
            return False
        if name == b"expect" or (name == b"content-length" and exceeds(value.decode("latin-1"), limit)):
            return False
    return True


def exceeds(declared: str | None, limit: int) -> bool:
    """Whether a Content-Length header, if there is one, announces more bytes than these."""
    return declared is not None and declared.isdecimal() and int(declared) > limit


async def _read(intake: RequestBody, declared: str | None, limit: int) -> bytes:
    # A refused body is read on and dropped for a while: a client that is still sending would not see the answer.
    if exceeds(declared, _DRAIN * limit):
        raise _too_large(limit)
    chunks: list[bytes] = []
    size, more, refusal = 0, True, None
    while more:
        message = await intake()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > _DRAIN * limit:
            raise _too_large(limit)
        if size > limit:
            refusal = _too_large(limit)
        elif refusal is None and not intake.hold(len(chunk)):
            refusal = _too_much_at_once()
        if refusal is None:
            chunks.append(chunk)
        else:
            chunks.clear()
            intake.release()
    if refusal is not None:
        raise refusal
    return b"".join(chunks)


def _too_large(limit: int) -> RequestError:
    message = f"the body is over the limit of {limit / 2**20:g} MiB: send a smaller picture, or fewer at once"
    return RequestError(413, "body_too_large", message, _CLOSE)


def _too_much_at_once() -> RequestError:
    message = "the bodies of all requests together are too large now: try again in 1 s, or send smaller pictures"
    return RequestError(429, "too_many_requests", message, {"Retry-After": "1"})
