"""Summarise measured rounds as rows: medians, spreads, and ratios taken within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.client.load import Cell
from loadtest.compare.rounds import PeerResult
from loadtest.reporting.intervals import ratio_interval


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and range of several measurements of one quantity."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, kw_only=True)
class Level:
    """Figures of one row at one number of clients."""

    clients: int
    rate: Spread
    """Requests per second."""

    p50_ms: Spread
    p99_ms: Spread
    requests: int
    errors: int
    wrong: int
    cpu_ms: float | None
    """Milliseconds of processor time for each request; None: not measured."""

    ratios: Mapping[str, float | None]
    """Heading of a reference to rate / reference's rate: median over the rounds, each ratio taken within a round."""

    ratio_intervals: Mapping[str, tuple[float, float] | None]
    """Heading of a reference to the 95 % interval of the ratio over the rounds; None of a single round."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Summary of one peer."""

    name: str
    title: str
    engine: str
    loop: bool
    ours: bool
    pictures: int
    """Number of different images with a response."""

    same: int
    """Number of images whose class was right in every response."""

    levels: tuple[Level, ...]
    cold_start_s: Spread | None
    peak_mib: Spread | None
    """Peak resident memory of all processes; shared pages count in each."""

    share_mib: Spread | None
    """Proportional set size of all processes at the end of the load; shared pages count once."""

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the row, ready for JSON."""
        return asdict(self)


References = Mapping[str, Callable[[str], Sequence[str]]]
"""Ratios of the table: heading to a function from a row's name to the reference peers, of which the fastest counts."""


def rows(results: Sequence[PeerResult], clients: Sequence[int], variant: str, references: References) -> list[Row]:
    """Return a row for each result, measured or not, in the given order.

    Args:
        results: measurements of the run.
        clients: numbers of clients.
        variant: variant that our service chose.
        references: peers whose rates the rows are divided by.
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
            share_mib=Spread.of(result.shares_mib) if result.shares_mib else None,
            reason=result.reason,
        )
        for result in results
    ]


def _union(result: PeerResult, name: str) -> set[int]:
    return {position for cells in result.cells for cell in cells.values() for position in getattr(cell, name)}


def _level(result: PeerResult, clients: int, results: Sequence[PeerResult], references: References) -> Level:
    cells = [cells[clients] for cells in result.cells]
    rates = [cell.rate for cell in cells]
    ratios = {
        heading: _ratios(rates, _best(results, names(result.peer.name), clients))
        for heading, names in references.items()
    }
    return Level(
        clients=clients,
        rate=Spread.of(rates),
        p50_ms=Spread.of([cell.p50_ms for cell in cells]),
        p99_ms=Spread.of([cell.p99_ms for cell in cells]),
        requests=sum(cell.requests for cell in cells),
        errors=sum(cell.errors for cell in cells),
        wrong=sum(cell.wrong for cell in cells),
        cpu_ms=_cpu_ms(cells),
        ratios={heading: statistics.median(each) if each else None for heading, each in ratios.items()},
        ratio_intervals={heading: ratio_interval(each) for heading, each in ratios.items()},
    )


def _cpu_ms(cells: Sequence[Cell]) -> float | None:
    """Return the median over the rounds."""
    known = [(cell.cpu_seconds, cell.requests) for cell in cells if cell.requests]
    found = [1000 * seconds / requests for seconds, requests in known if seconds is not None]
    return statistics.median(found) if found else None


def _best(results: Sequence[PeerResult], names: Sequence[str], clients: int) -> list[float]:
    """Return the rates, round by round, of the named peer with the highest median.

    The maximum of each round would be biased: the better of two equal peers exceeds both by chance.
    """
    named = [[cells[clients].rate for cells in result.cells] for result in results if result.peer.name in names]
    return max(filter(None, named), key=statistics.median, default=[])


def _ratios(rates: Sequence[float], references: Sequence[float]) -> list[float]:
    return [rate / other for rate, other in zip(rates, references, strict=False) if other > 0]
