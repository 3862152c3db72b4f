"""Decode the body of a request with a Content-Encoding (RFC 9110, section 8.4) within the limits of bodies."""

from __future__ import annotations

import asyncio
import zlib

from serving.http.body import RequestBody, over_budget, too_large
from serving.http.errors import RequestError

SUPPORTED = ("gzip", "deflate")
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE = -15
_MOST_MEMBERS = 16
"""Most members of a gzip file: what follows a member is copied for the next one."""


async def decode_body(channel: RequestBody, body: bytes, encoding: str, *, limit: int) -> bytes:
    """Return the decoded body, which stays in the budget of all bodies until `channel.release()`.

    Args:
        channel: channel of the request.
        body: as it arrived.
        encoding: value of the Content-Encoding header, with at most one encoding but `identity`.
        limit: most bytes of the decoded body.

    Raises:
        RequestError: 415, the encoding is not supported; 400, the body is not in it; 413, the decoded body is over the
            limit; 429, the budget is used up.
    """
    names = [name for each in encoding.split(",") if (name := each.strip().lower()) not in ("", "identity")]
    if not names:
        return body
    if len(names) > 1 or names[0] not in _WINDOW_BITS:
        raise RequestError(
            415,
            "unsupported_media_type",
            f"the Content-Encoding {encoding[:50]!r} is not supported: send the body as it is, or with one of "
            f"{' and '.join(SUPPORTED)}",
        )
    try:
        decoded = await asyncio.to_thread(_inflate, body, names[0], limit)
    except zlib.error as error:
        raise RequestError(
            400, "bad_request", f"the body is not what its Content-Encoding {names[0]!r} says: {error}"
        ) from None
    if not channel.hold(len(decoded)):
        raise over_budget()
    return decoded


def _inflate(body: bytes, name: str, limit: int) -> bytes:
    """Return the whole content; a gzip file may have several members.

    Raises:
        zlib.error: the body is damaged or cut short.
        RequestError: 413.
    """
    bits = _WINDOW_BITS[name]
    # By the standard, deflate has zlib's header, and many clients send it without.
    if name == "deflate" and (len(body) < 2 or int.from_bytes(body[:2], "big") % 31 or body[0] & 15 != 8):
        bits = _RAW_DEFLATE
    parts: list[bytes] = []
    size, rest = 0, body
    while rest:
        if len(parts) == _MOST_MEMBERS:
            raise zlib.error(f"it has over {_MOST_MEMBERS} members")
        inflater = zlib.decompressobj(bits)
        parts.append(inflater.decompress(rest, limit - size + 1))
        size += len(parts[-1])
        if size > limit:
            raise too_large(limit)
        if not inflater.eof:
            raise zlib.error("it is cut short")
        rest = inflater.unused_data
    return b"".join(parts)
