"""What a generator is asked to do and what it reports: one cell of the comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Load:
    """A closed loop: every client sends its next request when the answer to its last one has arrived."""

    port: int
    requests: Sequence[bytes]
    """Whole HTTP requests, sent in turn."""

    expected: Sequence[int]
    """The right class index for each of them."""

    answer: str
    """Regular expression whose group is the class index in the body of an answer; of Python and, with `%` for the
    backslash, of Lua."""

    clients: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a generator counted."""

    clients: int
    seconds: float
    requests: int
    """Answered with 200."""

    errors: int
    """Answered otherwise, or not at all."""

    wrong: int
    """Answered with 200 and another class than the expected one."""

    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests answered with 200 a second."""
        return self.requests / self.seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values don't exceed (nearest rank); NaN of nothing."""
    if not values:
        return math.nan
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def class_index(answer: str, body: bytes) -> int | None:
    """The class index in an answer's body."""
    found = re.search(answer.encode(), body)
    return int(found[1]) if found else None
