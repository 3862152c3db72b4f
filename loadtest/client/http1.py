"""HTTP/1.1 for load generators: build requests as bytes, and parse the bytes of a connection into responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httptools

_MAX_HEAD = 64 * 1024
_NO_CONTENT, _NOT_MODIFIED = 204, 304


def encode_request(method: str, path: str, body: bytes = b"", *, host: str, headers: Mapping[str, str]) -> bytes:
    """Return a whole request; `Host` is added to the headers, and `Content-Length` if the method takes a body."""
    length = {} if method in ("GET", "HEAD") else {"Content-Length": str(len(body))}
    fields = {"Host": host, **headers, **length}
    lines = (f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", "")
    return "\r\n".join(lines).encode() + body


def get(path: str, *, host: str = "127.0.0.1") -> bytes:
    """Return a whole GET request."""
    return encode_request("GET", path, host=host, headers={})


def post(
    path: str,
    body: bytes = b"",
    *,
    host: str = "127.0.0.1",
    media_type: str = "application/octet-stream",
    keep_alive: bool = True,
) -> bytes:
    """Return a whole POST request; without `keep_alive` it tells the server to close the connection."""
    headers = {"Content-Type": media_type} | ({} if keep_alive else {"Connection": "close"})
    return encode_request("POST", path, body, host=host, headers=headers)


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    body: bytes
    keep_alive: bool
    """True if the connection may carry the next request."""

    headers: Mapping[bytes, bytes] = field(default_factory=dict, compare=False)
    """By name in lower case; of a repeated header the last value."""


class MalformedResponseError(ConnectionError):
    """The bytes are no HTTP/1.1 response with a length or chunks."""


class Responses:
    """Incremental parser of the responses on one connection, around llhttp.

    Interim responses (1xx) are skipped. A response without a length is malformed, because its end would look
    like a connection that broke.

    Args:
        bodiless: the request was a HEAD, so that the response has no body, whatever length it announces.
    """

    def __init__(self, *, bodiless: bool = False) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = bodiless
        self._complete: list[Response] = []
        self._last = False
        self._in_head = False

    def feed(self, data: bytes) -> list[Response]:
        """Return the responses that are complete with these bytes.

        Bytes after the last response of a connection are ignored.

        Raises:
            MalformedResponseError: see there.
        """
        if self._last:
            return []
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise MalformedResponseError("the server switched to another protocol") from None
        except httptools.HttpParserError as error:
            if not self._last:
                raise MalformedResponseError(str(error.__context__ or error)) from None
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD:
                raise MalformedResponseError("a response head without an end")
        complete, self._complete = self._complete, []
        return complete

    def on_message_begin(self) -> None:
        """Start a response (called by the parser, as the methods below)."""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._in_head, self._head_bytes = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Complete a response without a body, or check that the body has an end."""
        self._in_head = False
        status = self._parser.get_status_code()
        if self._bodiless and status >= 200:
            self._finish(status, keep_alive=False)
            return
        if status < 200 or status in (_NO_CONTENT, _NOT_MODIFIED) or b"content-length" in self._headers:
            return
        if not self._headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            raise MalformedResponseError("a response without a length")

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Complete a response."""
        status = self._parser.get_status_code()
        if status >= 200 and not self._last:
            self._finish(status, keep_alive=self._parser.should_keep_alive())

    def _finish(self, status: int, *, keep_alive: bool) -> None:
        self._complete.append(Response(status, b"".join(self._body), keep_alive, self._headers))
        self._last = not keep_alive
