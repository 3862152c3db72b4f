"""Strict JSON parser (RFC 8259) for files that decide what is executed.

It rejects input that two parsers could read differently, such as duplicate keys.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from models.common.errors import HalftoneError


def json_object(data: bytes, *, finite: bool = True) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        data: UTF-8 without a byte order mark.
        finite: reject NaN and infinite numbers, which JSON does not have but Python writes.

    Raises:
        HalftoneError: the data is not UTF-8, not JSON or not an object, or has a duplicate key or a non-finite number.
    """
    try:
        values = json.loads(
            data.decode(),
            object_pairs_hook=_distinct,
            parse_float=_finite if finite else None,
            parse_constant=_no_constant if finite else None,
        )
    except (ValueError, RecursionError) as error:
        raise HalftoneError(f"it is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise HalftoneError("it is not a JSON object")
    return values


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:100]!r} appears twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:100]} is too large a number")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
