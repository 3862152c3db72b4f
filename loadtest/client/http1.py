"""The client's half of HTTP/1.1: bytes from a socket to responses, as they come."""

from __future__ import annotations

from dataclasses import dataclass

_END = b"\r\n"
_HEAD_END = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024


@dataclass(frozen=True)
class Response:
    """A complete response."""

    status: int
    body: bytes
    keep_alive: bool
    """Whether the connection may carry the next request."""


class MalformedResponseError(Exception):
    """The bytes are no HTTP/1.1 response with a length or chunks."""


class Responses:
    """Takes the bytes of one connection in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Response]:
        """The responses that are complete with these bytes.

        Raises:
            MalformedResponseError: see there.
        """
        self._buffer += data
        responses = []
        while (response := self._next()) is not None:
            responses.append(response)
        return responses

    def _next(self) -> Response | None:
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise MalformedResponseError("a response head without an end")
            return None
        status, headers = _head(bytes(self._buffer[:head_end]))
        found = self._body(headers, head_end + len(_HEAD_END))
        if found is None:
            return None
        body, end = found
        del self._buffer[:end]
        return Response(status, body, headers.get(b"connection", b"").lower() != b"close")

    def _body(self, headers: dict[bytes, bytes], start: int) -> tuple[bytes, int] | None:
        """The body and where it ends in the buffer; None while it is incomplete."""
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            return self._chunks(start)
        if b"content-length" not in headers:
            raise MalformedResponseError("a response without a length")
        end = start + _number(headers[b"content-length"], 10)
        return (bytes(self._buffer[start:end]), end) if len(self._buffer) >= end else None

    def _chunks(self, position: int) -> tuple[bytes, int] | None:
        body = bytearray()
        while True:
            line_end = self._buffer.find(_END, position)
            if line_end < 0:
                return None
            size = _number(bytes(self._buffer[position:line_end]).partition(b";")[0], 16)
            start = line_end + len(_END)
            position = start + size + len(_END)
            if len(self._buffer) < position:
                return None
            if size == 0:
                return bytes(body), position
            body += self._buffer[start : start + size]


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(_END)
    parts = first.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1."):
        raise MalformedResponseError(f"a response that begins with {first[:50]!r}")
    pairs = (line.partition(b":") for line in lines)
    return _number(parts[1], 10), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _number(text: bytes, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError:
        raise MalformedResponseError(f"{text[:50]!r} where a number was expected") from None
    if value < 0:
        raise MalformedResponseError(f"the negative length {value}")
    return value
