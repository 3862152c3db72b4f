"""Read a request body within a size limit, a limit that all requests share, and a time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from serving.http.errors import RequestError
from serving.telemetry.request_context import note_received

if TYPE_CHECKING:
    from starlette.types import Receive

_DRAIN = 4
"""A refused body is read up to this multiple of the limit."""

_CLOSE = {"Connection": "close"}


class ClientGoneError(Exception):
    """The client closed the connection: no response can be sent."""


class BodyBudget:
    """Memory that all request bodies together may hold.

    Args:
        limit: most bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0


class RequestBody:
    """The ASGI channel of one request, with the share of the budget that its body holds.

    To be used on the event loop only.

    Args:
        receive: the channel.
        budget: shared with the other requests.
    """

    def __init__(self, receive: Receive, budget: BodyBudget) -> None:
        self._receive = receive
        self._budget = budget
        self._held = 0

    def __call__(self) -> Awaitable[Any]:
        """Return the channel's next message."""
        return self._receive()

    def hold(self, size: int) -> bool:
        """Take `size` bytes of the budget. Return False, and take nothing, if fewer are left."""
        if self._budget.held + size > self._budget.limit:
            return False
        self._budget.held += size
        self._held += size
        return True

    def release(self) -> None:
        """Return everything to the budget."""
        self._budget.held -= self._held
        self._held = 0


async def read_body(channel: RequestBody, declared: str | None, *, limit: int, seconds: float) -> bytes:
    """Return the whole body, which stays in the budget until `channel.release()`.

    Args:
        channel: channel of the request.
        declared: value of the Content-Length header.
        limit: most bytes of this body.
        seconds: time in which it must arrive.

    Raises:
        RequestError: 413, the body is over the limit; 429, the budget is used up; 408, the body takes too long.
        ClientGoneError: the client disconnected.
    """
    try:
        async with asyncio.timeout(seconds):
            body = await _read(channel, declared, limit)
    except TimeoutError:
        raise RequestError(
            408, "body_too_slow", f"the body did not arrive within {seconds:g} s: send it faster, or smaller", _CLOSE
        ) from None
    note_received(len(body))
    return body


def refusable(scope: Mapping[str, Any], limit: int) -> bool:
    """Return True if a request may be refused before its body is read.

    It may not if the connection closes after the response: a client that is still sending would see a reset instead of
    the response. Nor may it if the client waits for `100 Continue`: its next bytes on the connection would be taken for
    the body. A body over the limit is refused with 413 whatever else is wrong.

    Args:
        scope: ASGI scope of the request.
        limit: most bytes of a body.
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
    """Return True if the Content-Length header exists and announces more than `limit` bytes."""
    return declared is not None and declared.isdecimal() and int(declared) > limit


async def _read(channel: RequestBody, declared: str | None, limit: int) -> bytes:
    # A refused body is read on for a while and dropped: a client that is still sending would not see the response.
    if exceeds(declared, _DRAIN * limit):
        raise too_large(limit)
    chunks: list[bytes] = []
    size, more, refusal = 0, True, None
    while more:
        message = await channel()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > _DRAIN * limit:
            raise too_large(limit)
        if size > limit:
            refusal = too_large(limit)
        elif refusal is None and not channel.hold(len(chunk)):
            refusal = over_budget()
        if refusal is None:
            chunks.append(chunk)
        else:
            chunks.clear()
            channel.release()
    if refusal is not None:
        raise refusal
    return b"".join(chunks)


def too_large(limit: int) -> RequestError:
    """Return the error for a body over the limit, in bytes."""
    message = f"the body is over the limit of {limit / 2**20:g} MiB: send a smaller image, or fewer at once"
    return RequestError(413, "body_too_large", message, _CLOSE)


def over_budget() -> RequestError:
    """Return the error for a body for which the budget of all bodies has no room now."""
    message = "the bodies of all requests together are too large now: try again in 1 s, or send smaller images"
    return RequestError(429, "too_many_requests", message, {"Retry-After": "1"})
