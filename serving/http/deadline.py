"""Deadline of a request: the header X-Request-Timeout."""

from __future__ import annotations

import re

from serving.http.errors import bad_parameter

HEADER = b"x-request-timeout"

SHORTEST = 0.001
"""Shortest timeout that is accepted, in seconds: a smaller value is a mistake."""

_NUMBER = re.compile(r"\+?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,4})?", re.ASCII)


def allowed_seconds(text: str | None, most: float) -> float:
    """Return the time that a request may take once its body has arrived, in seconds.

    Args:
        text: value of the header, seconds as a decimal number; None if the request has no such header.
        most: limit of the service; a client can only shorten it.

    Raises:
        RequestError: 422, the value is not a number of at least `SHORTEST`.
    """
    if text is None:
        return most
    # `strip` removes more characters than `float` ignores: both the check and the conversion get the stripped text.
    number = text.strip()
    seconds = float(number) if _NUMBER.fullmatch(number) else 0.0
    if seconds < SHORTEST:
        raise bad_parameter(f"X-Request-Timeout must be seconds from {SHORTEST} on, such as 2.5, not {text[:30]!r}")
    return min(seconds, most)
