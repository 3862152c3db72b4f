"""From measured rounds to rows: medians, spreads, and ratios taken within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.comparison.catalogue import LIMITS
from loadtest.comparison.rounds import Result


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
    to_baseline: float | None
    """Times the rate of the better baseline of the same round; median over the rounds."""

    to_limit: float | None
    """The same to the better loop without HTTP."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One peer."""

    name: str
    title: str
    engine: str
    loop: bool
    levels: tuple[Level, ...]
    cold_start_s: Spread | None
    peak_mib: Spread | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def rows(
    results: Sequence[Result], clients: Sequence[int], variant: str, baselines: Callable[[str], Sequence[str]]
) -> list[Row]:
    """A row for each result, measured or not, in the given order.

    Args:
        results: all that was measured in the run.
        clients: numbers of clients.
        variant: that our service chose.
        baselines: a peer's name to the names of those that it is compared with; the better of them counts.
    """
    limit = _best(results, LIMITS, clients)
    best = {result.peer.name: _best(results, baselines(result.peer.name), clients) for result in results}
    return [
        Row(
            name=result.peer.name,
            title=result.peer.title,
            engine=result.peer.engine.format(variant=variant),
            loop=result.peer.loop,
            levels=tuple(
                _level(result, number, best[result.peer.name][number], limit[number])
                for number in clients
                if result.cells
            ),
            cold_start_s=Spread.of(result.cold_starts) if result.cold_starts else None,
            peak_mib=Spread.of(result.peaks_mib) if result.peaks_mib else None,
            reason=result.reason,
        )
        for result in results
    ]


def _best(results: Sequence[Result], names: Sequence[str], clients: Sequence[int]) -> dict[int, list[float]]:
    """Number of clients to the highest rate among the named peers, round by round."""
    named = [result.cells for result in results if result.peer.name in names]
    rounds = max((len(cells) for cells in named), default=0)
    return {
        number: [max(cells[i][number].rate for cells in named if i < len(cells)) for i in range(rounds)]
        for number in clients
    }


def _level(result: Result, clients: int, baseline: Sequence[float], limit: Sequence[float]) -> Level:
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
        to_baseline=_ratio(rates, baseline),
        to_limit=_ratio(rates, limit),
    )


def _ratio(rates: Sequence[float], references: Sequence[float]) -> float | None:
    ratios = [rate / other for rate, other in zip(rates, references, strict=False) if other > 0]
    return statistics.median(ratios) if ratios else None
