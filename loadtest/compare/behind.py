"""Figures in which another server is ahead of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadtest.compare.summary import Level, Row, Spread


@dataclass(frozen=True, kw_only=True)
class _Column:
    name: str
    read: Callable[[Row], float | None]
    sign: int
    """1 if more is better, -1 if less is."""


def behind(rows: Sequence[Row]) -> list[str]:
    """Return a line for each column in which another server is better than the best row of our service."""
    served = [row for row in rows if row.levels and not row.loop]
    ours, peers = [row for row in served if row.ours], [row for row in served if not row.ours]
    if not ours or not peers:
        return []
    return [line for column in _columns(ours[0]) if (line := _line(column, ours, peers))]


def _line(column: _Column, ours: Sequence[Row], peers: Sequence[Row]) -> str:
    own = [value for row in ours if (value := column.read(row)) is not None]
    others = [(column.sign * value, row) for row in peers if (value := column.read(row)) is not None]
    if not own or not others:
        return ""
    best = max(column.sign * value for value in own)
    value, peer = max(others, key=lambda each: each[0])
    if value <= best:
        return ""
    figures = f"{abs(value):.4g} against our {abs(best):.4g}"
    return f"ahead of us in {column.name}: {peer.title} with {peer.engine}, {figures}"


def _columns(row: Row) -> Iterator[_Column]:
    for place, level in enumerate(row.levels):
        at = f"at {level.clients} client{'s' * (level.clients > 1)}"
        yield _of_level(f"requests/s {at}", place, lambda level: level.rate.median, 1)
        yield _of_level(f"p50 in ms {at}", place, lambda level: level.p50_ms.median, -1)
        yield _of_level(f"p99 in ms {at}", place, lambda level: level.p99_ms.median, -1)
        yield _of_level(f"CPU ms a request {at}", place, lambda level: level.cpu_ms, -1)
    for name, read in _WHOLE.items():
        yield _Column(name=name, read=lambda row, read=read: _median(read(row)), sign=-1)  # type: ignore[misc]


def _of_level(name: str, place: int, read: Callable[[Level], float | None], sign: int) -> _Column:
    return _Column(name=name, read=lambda row: read(row.levels[place]), sign=sign)


_WHOLE: dict[str, Callable[[Row], Spread | None]] = {
    "peak RSS in MiB": lambda row: row.peak_mib,
    "PSS in MiB": lambda row: row.share_mib,
    "cold start in s": lambda row: row.cold_start_s,
}


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None
