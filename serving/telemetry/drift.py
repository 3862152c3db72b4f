"""Whether pictures are still like those that came first, one number a picture."""

from __future__ import annotations

import math
import statistics
from collections import deque

WINDOW = 100
"""Pictures that make the baseline, and the last ones that are held against it."""

_FLOOR = 1e-6


class Drift:
    """Compares the mean of the last `WINDOW` values with that of the first ones; for one writer, and any readers."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._mean = self._deviation = math.nan

    def add(self, value: float) -> None:
        """One more picture; a number that is none is left out."""
        if not math.isfinite(value):
            return
        self._last.append(value)
        if len(self._first) < WINDOW:
            self._first.append(value)
            if len(self._first) == WINDOW:
                self._mean = statistics.fmean(self._first)
                self._deviation = max(statistics.pstdev(self._first), _FLOOR * max(1.0, abs(self._mean)))

    @property
    def recent(self) -> float:
        """Mean of the last values; NaN before the first one."""
        values = [*self._last]
        return statistics.fmean(values) if values else math.nan

    @property
    def distance(self) -> float:
        """From the first values' mean, in standard deviations of one value; NaN while these are being collected."""
        return (self.recent - self._mean) / self._deviation
