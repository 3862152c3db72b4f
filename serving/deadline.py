"""The time that a client allows for its answer: the header X-Request-Timeout."""

from __future__ import annotations

import re

from serving.errors import bad_parameter

HEADER = b"x-request-timeout"

_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)


def allowed_seconds(text: str | None, most: float) -> float:
    """How long a request may take once its body has arrived, in seconds.

    Args:
        text: the header's value, seconds as a decimal number; None where there is no header.
        most: what the service allows; a client can only shorten it.

    Raises:
        RequestError: 422 where it is no positive number.
    """
    if text is None:
        return most
    seconds = float(text) if _SECONDS.fullmatch(text.strip()) else 0.0
    if seconds <= 0:
        raise bad_parameter(f"X-Request-Timeout must be a positive number of seconds such as 2.5, not {text[:30]!r}")
    return min(seconds, most)
