"""Plots of a sweep: latency against rate, and the percentiles of each rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from loadtest.openloop.level import PERCENTILES, Level
from loadtest.reporting.cli import CompareError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE, _DPI = (8.0, 5.0), 120
# The axis has no place for 100 %: each additional nine takes the same width.
_LARGEST = 99.9


def check_installed() -> None:
    """Raise CompareError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise CompareError("the plots need matplotlib: `pip install matplotlib`, or leave them out with --no-plots")


def draw(levels: Sequence[Level], target_ms: float, prefix: Path) -> list[str]:
    """Write `PREFIX-rate.png` and `PREFIX-percentiles.png`; return their names.

    Args:
        levels: measurements by rate, at least one.
        target_ms: target for the 99th percentile in milliseconds.
        prefix: path without suffix.
    """
    # A rate that missed the target, or is the highest, was measured twice: the second measurement counts.
    last = list({level.offered: level for level in levels}.values())
    return [
        _figure(f"{prefix}-rate.png", lambda axes: _rate(axes, last, target_ms)),
        _figure(f"{prefix}-percentiles.png", lambda axes: _percentiles(axes, last, target_ms)),
    ]


def _figure(path: str, paint: Callable[[Axes], None]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    paint(axes)
    axes.set_yscale("log")
    for axis_part in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_part("{x:g}")
    axes.set_ylabel("latency from the intended send time, ms")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path)
    return Path(path).name


def _rate(axes: Axes, levels: Sequence[Level], target_ms: float) -> None:
    for percent in (50, 90, 99):
        axes.plot(
            [level.offered for level in levels], [level.ms(percent) for level in levels], "o-", label=f"p{percent}"
        )
    axes.axhline(target_ms, color="black", linestyle="--", label=f"target for p99: {target_ms:g} ms")
    axes.set_xlabel("offered requests per second")


def _percentiles(axes: Axes, levels: Sequence[Level], target_ms: float) -> None:
    shown = [percent for percent in PERCENTILES if percent <= _LARGEST]
    # The usual axis for tails, as in HdrHistogram.
    places = [100 / (100 - percent) for percent in shown]
    for level in levels:
        axes.plot(places, [level.ms(percent) for percent in shown], label=f"{level.offered:.0f}/s")
    axes.axhline(target_ms, color="black", linestyle="--")
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{percent:g}" for percent in shown])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
