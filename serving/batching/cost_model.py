"""Batch sizes from a cost model: the measured seconds of a batch by its size, refined while the service runs.

If a model runs eight images in less than eight times the time of one (a GPU, a processor with matrix units), batches
raise the throughput. On most processors they don't, and a batch would only delay its first image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

GAIN = 1.03
"""Least ratio of two throughputs that counts as a gain; below it they count as equal."""

_SMOOTHING = 0.1
"""Weight of a new sample in the moving average."""

_MAX_GAP = 4
"""Largest age of a size's last sample, in batches, that raises the weight of the new one."""

_EXPLORE_EVERY, _EXPLORE_SHARE = 128, 0.015
"""One batch in N tries another size, if that wastes at most this share of the throughput."""

_EARLY_EVERY, _EARLY_SAMPLES = 16, 6
"""One batch in N tries another size while that has fewer samples than this."""


class BatchSizes(Protocol):
    """Decides the size of batches; called under the batcher's lock."""

    def best(self, available: int) -> int:
        """Return the number of the `available` (at least 1) items to run at once; only `observe` changes it."""

    def observe(self, size: int, seconds: float) -> None:
        """Receive the duration of a batch of `size`."""

    def waiting_pays(self, ready: int, coming: int, seconds: float) -> bool:
        """Return True if `ready` items should wait `seconds` for `coming` more; one batch can run at a time."""


class AlwaysUpTo:
    """Batches of all available items up to a fixed size; 1 means no batching."""

    def __init__(self, size: int) -> None:
        self._size = size

    def best(self, available: int) -> int:
        """Return all available items, up to the fixed size."""
        return min(available, self._size)

    def observe(self, size: int, seconds: float) -> None:
        """Do nothing."""

    def waiting_pays(self, ready: int, coming: int, seconds: float) -> bool:
        """Return False."""
        return False


class Costs:
    """Batch sizes by a table of measured durations.

    Args:
        seconds: size of a batch to its duration in seconds while all streams are busy; holds at least size 1.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self._seconds = dict(sorted(seconds.items()))
        self._observed = 1
        self._last_observed = dict.fromkeys(self._seconds, 0)
        self._samples = dict.fromkeys(self._seconds, 0)

    @property
    def seconds(self) -> dict[int, float]:
        """Size of a batch to the current average of its duration in seconds."""
        return dict(self._seconds)

    @property
    def throughput(self) -> float:
        """Items per second of one stream in batches of the best size."""
        return max(size / seconds for size, seconds in self._seconds.items())

    def best(self, available: int) -> int:
        """Return the size with the highest throughput that the queue fills; the smallest one if several are equal.

        From time to time another size is tried, so that its average follows the machine's load, unless that would
        waste more than a small share of the throughput. Early on this happens more often: while images are decoded on
        the other cores, a batch does not take as long as on the idle machine at the start.
        """
        each = {size: seconds / size for size, seconds in self._seconds.items() if size <= available}
        limit = GAIN * min(each.values())
        best = next(size for size in each if each[size] <= limit)
        return self._explore(best, {size: size * (cost - each[best]) for size, cost in each.items() if size != best})

    def _explore(self, best: int, waste: Mapping[int, float]) -> int:
        """Return the best size, or another one if it is due; `waste` is the loss of a batch of each in seconds."""
        turn, rest = divmod(self._observed, _EXPLORE_EVERY)
        if waste and not rest:
            other = list(waste)[turn % len(waste)]
            return other if waste[other] <= _EXPLORE_SHARE * _EXPLORE_EVERY * self._seconds[best] else best
        if self._observed % _EARLY_EVERY:
            return best
        limit = self._seconds[best] / 2
        new = (size for size, loss in waste.items() if self._samples[size] < _EARLY_SAMPLES and loss <= limit)
        return next(new, best)

    def observe(self, size: int, seconds: float) -> None:
        """Update the moving average of this size; the older its last sample, the larger the weight of this one."""
        self._observed += 1
        if size in self._seconds:
            gap = min(self._observed - self._last_observed[size], _MAX_GAP)
            self._last_observed[size] = self._observed
            self._samples[size] += 1
            self._seconds[size] += (1 - (1 - _SMOOTHING) ** gap) * (seconds - self._seconds[size])

    def waiting_pays(self, ready: int, coming: int, seconds: float) -> bool:
        """Return True if the items are done sooner on average when they wait and run as one batch."""
        cost = self._estimate
        together = (ready + coming) * (seconds + cost(ready + coming))
        apart = ready * cost(ready) + coming * (max(seconds, cost(ready)) + cost(coming))
        return together < apart

    def _estimate(self, count: int) -> float:
        """Return the seconds for any number of items, split into batches of the known sizes."""
        total = 0.0
        for size in reversed(self._seconds):
            batches, count = divmod(count, size)
            total += batches * self._seconds[size]
        return total
