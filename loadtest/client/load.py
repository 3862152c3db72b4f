"""What a generator is asked to do and what it reports: one cell of the comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field


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
    """Of the time from the first byte sent to the last one received, of those answered with 200."""

    p99_ms: float
    """Likewise."""

    seen: frozenset[int] = frozenset()
    """Positions of the requests of the load that were answered with 200 at least once."""

    missed: frozenset[int] = frozenset()
    """Those of them that were answered wrongly at least once."""

    @property
    def rate(self) -> float:
        """Requests answered with 200 a second."""
        return self.requests / self.seconds


@dataclass
class Tally:
    """Counts of one cell; the same for every generator, so that their figures mean the same."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from the first byte sent to the last byte received, of the requests answered with 200."""

    errors: int = 0
    wrong: int = 0
    seen: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)

    def count(self, status: int, index: int | None, seconds: float, position: int, load: Load) -> None:
        """Add one response with this class index to the load's request at this position."""
        if status != 200:
            self.errors += 1
            return
        self.latencies.append(seconds)
        self.seen.add(position)
        if index != load.expected[position]:
            self.wrong += 1
            self.missed.add(position)

    def cell(self, clients: int, seconds: float) -> Cell:
        """The figures."""
        return Cell(
            clients=clients,
            seconds=seconds,
            requests=len(self.latencies),
            errors=self.errors,
            wrong=self.wrong,
            p50_ms=1000 * percentile(self.latencies, 50),
            p99_ms=1000 * percentile(self.latencies, 99),
            seen=frozenset(self.seen),
            missed=frozenset(self.missed),
        )


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
