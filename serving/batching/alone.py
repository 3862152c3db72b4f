"""Choice between two forms of the model for an item that is alone: on one core, or on all of them.

All cores are faster on an idle machine. If other programs take some of them, the slowest core decides, and one is
faster.
"""

from __future__ import annotations

_SMOOTHING = 0.2
_TRY_EVERY = 16
"""One item in N tries the form that was slower."""
_FIRST = 6
"""Items that alternate between the forms at first."""
_GAIN = 1.05
"""Least gain of all cores: they are all taken from what else is there to do."""


class AloneForm:
    """Follows the durations of both forms; called under the batcher's lock."""

    def __init__(self) -> None:
        self._seconds: dict[bool, float] = {}
        self._count = 0

    def on_all(self) -> bool:
        """Return True if the next item that is alone should run on all cores."""
        self._count += 1
        if self._count <= _FIRST or len(self._seconds) < len((True, False)):
            return bool(self._count % 2)
        better = self._seconds[True] * _GAIN < self._seconds[False]
        return better if self._count % _TRY_EVERY else not better

    def observe(self, on_all: bool, seconds: float) -> None:
        """Receive the duration of an item that was alone when it began."""
        before = self._seconds.get(on_all, seconds)
        self._seconds[on_all] = before + _SMOOTHING * (seconds - before)
