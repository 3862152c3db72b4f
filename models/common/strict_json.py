"""JSON as RFC 8259 has it, for files that decide what is run: what two readers could take differently is refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from models.common.errors import HalftoneError


def json_object(data: bytes, *, finite: bool = True) -> dict[str, Any]:
    """The members of a JSON object.

    Args:
        data: UTF-8 without a byte order mark.
        finite: whether NaN and infinite numbers are refused; JSON has none, but Python writes them.

    Raises:
        HalftoneError: not UTF-8, not JSON, no object, a key that is there twice, or a number that is none.
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
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:100]} is too large a number")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
