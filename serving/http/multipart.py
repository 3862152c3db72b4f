"""Parser for multipart forms in memory; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.http.errors import RequestError

MAX_PARTS = 1000


@dataclass
class Part:
    """One field of a form."""

    name: str
    """Name of the field."""

    is_file: bool
    """True if the field has a file name."""

    data: bytes
    """Content of the field."""


@dataclass
class _Collector:
    """Collects the parser's events for one form."""

    parts: list[Part] = field(default_factory=list)
    _header: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _chunks: list[bytes] = field(default_factory=list)

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise RequestError(413, "body_too_large", f"the form has over {MAX_PARTS} fields: send fewer")
        self._disposition, self._chunks = b"", []

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts.append(Part(name, b"filename" in options, b"".join(self._chunks)))


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """Return the fields of a multipart/form-data body (RFC 7578) in order.

    Raises:
        RequestError: 400, the form is malformed or truncated; 413, it has too many fields.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _bad_form("its Content-Type has no boundary")
    collector = _Collector()
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(boundary, {**collector.callbacks(), "on_end": end})  # type: ignore[arg-type]
        parser.write(_without_preamble(body, boundary))
        parser.finalize()
    except FormParserError as error:
        raise _bad_form(str(error)) from None
    if not ended:
        raise _bad_form("it is truncated")
    return collector.parts


def _without_preamble(body: bytes, boundary: bytes) -> bytes:
    """Return the body from its first boundary on: RFC 2046, section 5.1.1, allows text before it."""
    if body.startswith((b"--" + boundary, b"\r\n--" + boundary)):
        return body
    start = body.find(b"\r\n--" + boundary)
    return body if start < 0 else body[start + 2 :]


def _bad_form(reason: str) -> RequestError:
    return RequestError(
        400, "bad_form", f"the multipart form can't be read: {reason}; let your HTTP client build it (curl -F)"
    )
