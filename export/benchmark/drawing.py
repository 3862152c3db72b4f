"""Drawing of accuracy against the time of a picture, as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

INK, GRID, POINT, LINE = "#1d2733", "#e3e7ec", "#1f5fbf", "#9db8de"
DPI = 144


class Point(Protocol):
    """A model with both figures."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def accuracy(self) -> float | None:
        """In 0..1."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the accuracy."""

    @property
    def milliseconds(self) -> float | None:
        """Time of a picture."""


def accuracy_and_time(points: Sequence[Point]) -> bytes:
    """Draw the points with their intervals, and a line through those that are more accurate than all faster ones.

    Args:
        points: none of their accuracies and times is None.
    """
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for point in points:
        accuracy, duration = _place(point)
        low, high = point.interval or (accuracy, accuracy)
        axes.errorbar(duration, accuracy, yerr=[[accuracy - low], [high - accuracy]], fmt="o", color=POINT, capsize=3)
        # No formulas: a name may contain a dollar sign.
        place = (duration, accuracy)
        axes.annotate(point.model, place, (6, 4), textcoords="offset points", color=INK, parse_math=False)
    accuracies, durations = zip(*_frontier(points), strict=True)
    axes.step(durations, accuracies, where="post", color=LINE, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a picture, on one core with all cores busy")
    axes.set_ylabel("accuracy, with its 95 % interval")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.grid(color=GRID)
    axes.margins(x=0.15, y=0.12)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def _place(point: Point) -> tuple[float, float]:
    """Return accuracy and time."""
    return point.accuracy or 0.0, point.milliseconds or 0.0


def _frontier(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return accuracy and time of the points that are more accurate than all faster ones, by time."""
    found: list[tuple[float, float]] = []
    for accuracy, duration in sorted(map(_place, points), key=lambda place: (place[1], -place[0])):
        if not found or accuracy > found[-1][0]:
            found.append((accuracy, duration))
    return found
