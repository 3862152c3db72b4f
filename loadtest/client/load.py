"""Input and output of a closed-loop load generator: one server at one number of clients for some seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Load:
    """A closed loop: every client sends its next request when the response to its last one has arrived."""

    port: int
    requests: Sequence[bytes]
    """Whole HTTP requests, sent in turn."""

    expected: Sequence[int]
    """The right class index for each of them."""

    answer: str
    """Regular expression whose group is the class index in the body of a response; it must be valid in Python and, with
    `%` for the backslash, in Lua."""

    clients: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Counts and latencies of one load."""

    clients: int
    seconds: float
    requests: int
    """Requests with status 200."""

    errors: int
    """Requests with another status, or without a response."""

    wrong: int
    """Requests with status 200 and another class than the expected one."""

    p50_ms: float
    """Median latency from the first byte sent to the last one received, of the requests with status 200."""

    p99_ms: float
    """99th percentile of the same latency."""

    seen: frozenset[int] = frozenset()
    """Positions in `Load.requests` that got status 200 at least once."""

    missed: frozenset[int] = frozenset()
    """Positions in `seen` that got a wrong class at least once."""

    cpu_seconds: float | None = None
    """Processor time of all processes of the server during the load; None: not measured."""

    @property
    def rate(self) -> float:
        """Requests with status 200 a second."""
        return self.requests / self.seconds


@dataclass
class Tally:
    """Counts of one cell, kept in the same way by every generator, so that their figures are comparable."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from the first byte sent to the last byte received, of the requests with status 200."""

    errors: int = 0
    wrong: int = 0
    seen: set[int] = field(default_factory=set)
    missed: set[int] = field(default_factory=set)

    def count(self, status: int, index: int | None, seconds: float, position: int, load: Load) -> None:
        """Add one response.

        Args:
            status: HTTP status.
            index: class index in the response; None: it has none.
            seconds: latency.
            position: of the request in `load.requests`.
            load: the load that it belongs to.
        """
        if status != 200:
            self.errors += 1
            return
        self.latencies.append(seconds)
        self.seen.add(position)
        if index != load.expected[position]:
            self.wrong += 1
            self.missed.add(position)

    def cell(self, clients: int, seconds: float) -> Cell:
        """Return the figures."""
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
    """Return the smallest value that at least `percent` of all values don't exceed (nearest rank); NaN of no values."""
    if not values:
        return math.nan
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def class_index(answer: str, body: bytes) -> int | None:
    """Return the class index in a response's body; None: it has none."""
    found = re.search(answer.encode(), body)
    return int(found[1]) if found else None
