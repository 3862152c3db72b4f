"""Offers to speak another protocol on a connection, which are ignored as RFC 9110, section 7.8, allows.

Java's HttpClient offers HTTP/2 (`Upgrade: h2c`) with every plain request. The parser stops after the head of such a
request, as if the connection spoke another protocol from there on, and uvicorn drops what follows: the request has no
body (https://github.com/Kludex/uvicorn/issues/2722). Here the head is parsed again without the offer.
"""

from __future__ import annotations

from collections.abc import Sequence

_OFFERS = (b"upgrade", b"http2-settings")


def head_without_offer(method: bytes, url: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the head of a request without what offers another protocol.

    Args:
        method: of the request.
        url: its target, as it was sent.
        version: of HTTP, such as `1.1`.
        headers: names in lower case, and values.
    """
    lines = [b"%s %s HTTP/%s" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            tokens = [token for token in value.split(b",") if token.strip().lower() not in _OFFERS]
            lines.append(b"connection: " + b",".join(tokens))
        elif name not in _OFFERS:
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
