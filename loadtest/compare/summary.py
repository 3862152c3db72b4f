"""From measured rounds to rows: medians, spreads, and ratios taken within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.compare.rounds import Result


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several measurements of one quantity."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, kw_only=True)
class Level:
    """A row's figures at one number of clients."""

    clients: int
    rate: Spread
    """Requests a second."""

    p50_ms: Spread
    p99_ms: Spread
    requests: int
    errors: int
    wrong: int
    ratios: Mapping[str, float | None]
    """Reference's name to the times that its rate is reached: median over the rounds, each divided within itself."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer."""

    name: str
    title: str
    engine: str
    loop: bool
    ours: bool
    pictures: int
    """Different pictures that were answered."""

    same: int
    """Those whose class was the right one in every answer."""

    levels: tuple[Level, ...]
    cold_start_s: Spread | None
    peak_mib: Spread | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


References = Mapping[str, Callable[[str], Sequence[str]]]
"""What rows are divided by: a heading to a function from a row's name to the peers of which the better one counts."""


def rows(results: Sequence[Result], clients: Sequence[int], variant: str, references: References) -> list[Row]:
    """A row for each result, measured or not, in the given order.

    Args:
        results: all that was measured in the run.
        clients: numbers of clients.
        variant: that our service chose.
        references: see there.
    """
    return [
        Row(
            name=result.peer.name,
            title=result.peer.title,
            engine=result.peer.engine.format(variant=variant),
            loop=result.peer.loop,
            ours=result.peer.ours,
            pictures=len(_union(result, "seen")),
            same=len(_union(result, "seen") - _union(result, "missed")),
            levels=tuple(_level(result, number, results, references) for number in clients if result.cells),
            cold_start_s=Spread.of(result.cold_starts) if result.cold_starts else None,
            peak_mib=Spread.of(result.peaks_mib) if result.peaks_mib else None,
            reason=result.reason,
        )
        for result in results
    ]


def _union(result: Result, name: str) -> set[int]:
    return {position for cells in result.cells for cell in cells.values() for position in getattr(cell, name)}


def _level(result: Result, clients: int, results: Sequence[Result], references: References) -> Level:
    cells = [cells[clients] for cells in result.cells]
    rates = [cell.rate for cell in cells]
    return Level(
        clients=clients,
        rate=Spread.of(rates),
        p50_ms=Spread.of([cell.p50_ms for cell in cells]),
        p99_ms=Spread.of([cell.p99_ms for cell in cells]),
        requests=sum(cell.requests for cell in cells),
        errors=sum(cell.errors for cell in cells),
        wrong=sum(cell.wrong for cell in cells),
        ratios={
            heading: _ratio(rates, _best(results, names(result.peer.name), clients))
            for heading, names in references.items()
        },
    )


def _best(results: Sequence[Result], names: Sequence[str], clients: int) -> list[float]:
    """The rates, round by round, of that one of the named peers whose median is the highest.

    Not the highest of each round: the better of two equals is faster than both, by luck alone.
    """
    named = [[cells[clients].rate for cells in result.cells] for result in results if result.peer.name in names]
    return max(filter(None, named), key=statistics.median, default=[])


def _ratio(rates: Sequence[float], references: Sequence[float]) -> float | None:
    ratios = [rate / other for rate, other in zip(rates, references, strict=False) if other > 0]
    return statistics.median(ratios) if ratios else None
