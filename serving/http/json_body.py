"""Parse JSON from the network within limits: it is parsed on the event loop, where a second delays every request."""

from __future__ import annotations

import json
from typing import Any

from serving.http.errors import RequestError

MAX_VALUES = 2**19
"""Most values in the JSON of a request (3 images of 224 x 224 pixels)."""

MAX_DIGITS = 640
"""Most digits of an integer, which take quadratic time: the least that Python can be limited to."""

_VALUES_AN_OBJECT = 8
"""An object takes as long as this many numbers."""


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        data: UTF-8. `sys.set_int_max_str_digits(MAX_DIGITS)` must be in force.

    Raises:
        RequestError: 413, there are too many values.
        ValueError: it is not UTF-8, not JSON, too deeply nested, or not an object.
    """
    # Every value has a comma before it, except the first one of a list or object.
    if data.count(b",") + data.count(b"[") + _VALUES_AN_OBJECT * data.count(b"{") > MAX_VALUES:
        raise RequestError(
            413, "body_too_large", f"the JSON has over {MAX_VALUES:,} values: send the tensor as binary data"
        )
    try:
        # Decoded first: from bytes, json would also read UTF-16 and UTF-32, whose commas were not counted.
        values = json.loads(data.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it is not an object")
    return values
