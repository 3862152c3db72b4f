"""Goals of each study: the measured figure, its limit, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.compare.summary import Level, Row

SAME_TOP_1 = 0.985
_BUSY = (8, 32)
_RATIOS = {"× FastAPI + ONNX Runtime": 2.2, "× FastAPI + our engine": 1.15, "× limit": 0.92}
_ALONE = {"× FastAPI + our engine": 1.25}
_LARGE = {"× OpenCV or Pillow": 1.5}
_PEAK_MIB = {"halftone": 260, "halftone-workers": 420}
_COLD_START_S = 1.8
_TAIL = 1.6
_BETTER = {"× better of off and on": 0.95}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One figure and its limit."""

    text: str
    """Name of the figure, with the limit."""

    figure: float | None
    """Measured value; None: not measured."""

    limit: float
    reached: bool
    speed: bool = True
    """True for a goal of speed, which other load on the machine may spoil; False for one of correctness."""

    interval: tuple[float, float] | None = None
    """95 % interval of the figure over the rounds; None: there is none."""

    def line(self) -> str:
        """Return the goal and its result as a line of text."""
        if self.figure is None:
            return f"not measured: {self.text}"
        words = f"{'reached' if self.reached else 'not reached'}{self._noise()}"
        return f"{words}: {self.text}: {self.figure:.4g}"

    def _noise(self) -> str:
        if self.interval is None or not self.interval[0] <= self.limit <= self.interval[1]:
            return ""
        return f", within the noise of the rounds ({self.interval[0]:.2f} to {self.interval[1]:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the goal, ready for JSON."""
        return asdict(self)


def goals(name: str, rows: Sequence[Row]) -> list[Goal]:
    """Return the goals of the study `name` for the rows of our service."""
    found: list[Goal] = []
    for row in (row for row in rows if row.ours):
        if name == "compare":
            found += [*_ratios(row, _ALONE, (1,)), *_ratios(row, _RATIOS, _BUSY), _tail(row), *_weight(row)]
        elif name == "large":
            found += _ratios(row, _LARGE, _BUSY)
        elif name == "noop":
            found += _noop(row)
        elif row.name.endswith("-auto"):
            found += _ratios(row, _BETTER, (1, *_BUSY))
        found += _correctness(row)
    return found


def failed(rows: Sequence[Row], evaluated: Sequence[Goal], *, strict: bool) -> bool:
    """Return True if our service failed or gave wrong predictions; if strict, also if it missed a goal of speed."""
    if any(row.ours and row.reason for row in rows):
        return True
    return any(not goal.reached and (strict or (not goal.speed and goal.figure is not None)) for goal in evaluated)


def _at_least(
    text: str,
    figure: float | None,
    limit: float,
    *,
    speed: bool = True,
    interval: tuple[float, float] | None = None,
) -> Goal:
    reached = figure is not None and figure >= limit
    text = f"{text}, at least {limit:g}"
    return Goal(text=text, figure=figure, limit=limit, reached=reached, speed=speed, interval=interval)


def _at_most(text: str, figure: float | None, limit: float, *, speed: bool = True) -> Goal:
    reached = figure is not None and figure <= limit
    return Goal(text=f"{text}, at most {limit:g}", figure=figure, limit=limit, reached=reached, speed=speed)


def _level(row: Row, clients: int) -> Level | None:
    return next((level for level in row.levels if level.clients == clients), None)


def _ratios(row: Row, limits: dict[str, float], clients: Sequence[int]) -> list[Goal]:
    levels = {number: _level(row, number) for number in clients}
    return [
        _at_least(
            f"{row.name} {heading} at {number} clients",
            level.ratios.get(heading) if level else None,
            limit,
            interval=level.ratio_intervals.get(heading) if level else None,
        )
        for heading, limit in limits.items()
        for number, level in levels.items()
    ]


def _tail(row: Row) -> Goal:
    level = _level(row, 8)
    ratio = level.p99_ms.median / level.p50_ms.median if level and level.p50_ms.median else None
    return _at_most(f"{row.name} p99 / p50 at 8 clients", ratio, _TAIL)


def _weight(row: Row) -> list[Goal]:
    cold_start = row.cold_start_s.median if row.cold_start_s else None
    found = [_at_most(f"{row.name} cold start in s", cold_start, _COLD_START_S)]
    if limit := _PEAK_MIB.get(row.name):
        found.append(_at_most(f"{row.name} peak RSS in MiB", row.peak_mib.median if row.peak_mib else None, limit))
    return found


def _noop(row: Row) -> list[Goal]:
    level = _level(row, 32)
    return [
        _at_least(f"{row.name} requests/s at 32 clients", level.rate.median if level else None, 2500),
        _at_most(f"{row.name} p99 in ms at 32 clients", level.p99_ms.median if level else None, 25),
    ]


def _correctness(row: Row) -> list[Goal]:
    errors = float(sum(level.errors for level in row.levels)) if row.levels else None
    share = row.same / row.pictures if row.pictures else None
    return [
        _at_most(f"{row.name} errors", errors, 0, speed=False),
        _at_least(f"{row.name} share of pictures with the same top-1", share, SAME_TOP_1, speed=False),
    ]
