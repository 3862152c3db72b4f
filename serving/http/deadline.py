"""The time that a client allows for its answer: the header X-Request-Timeout."""

from __future__ import annotations

import re

from serving.http.errors import bad_parameter

HEADER = b"x-request-timeout"

SHORTEST = 0.001
"""Seconds; a client that allows less can't mean it."""

_NUMBER = re.compile(r"\+?\d{1,400}(\.\d{1,400})?([eE][+-]?\d{1,4})?", re.ASCII)


def allowed_seconds(text: str | None, most: float) -> float:
    """How long a request may take once its body has arrived, in seconds.

    Args:
        text: the header's value, seconds as a decimal number; None where there is no header.
        most: what the service allows; a client can only shorten it.

    Raises:
        RequestError: 422 where it is no number of at least `SHORTEST`.
    """
    if text is None:
        return most
    # Stripped for both: Python's whitespace is more than what float ignores.
    number = text.strip()
    seconds = float(number) if _NUMBER.fullmatch(number) else 0.0
    if seconds < SHORTEST:
        raise bad_parameter(f"X-Request-Timeout must be seconds from {SHORTEST} on, such as 2.5, not {text[:30]!r}")
    return min(seconds, most)
