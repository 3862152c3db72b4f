"""What a batch costs, and so how many pictures to run at once: measured at the start, refined while it serves.

Where a model runs eight pictures in less than eight times the time of one (a GPU, a processor with matrix units),
batches raise the throughput; on most processors they don't, and every batch would only make its first picture wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

_GAIN = 1.03

_SMOOTHING = 0.1

_LONG_AGO = 4

_EXPLORE_EVERY = 128

_EXPLORE_FIRST_EVERY = 16

_FIRST = 6

_EXPLORE_SHARE = 0.015


class BatchSizes(Protocol):
    """Decides the size of batches; called under the batcher's lock."""

    def best(self, available: int) -> int:
        """How many of `available` (at least 1) items to run at once; the same until something is observed."""

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a batch of `size` took this long."""

    def waiting_pays(self, ready: int, coming: int, seconds: float) -> bool:
        """Whether `ready` items should wait `seconds` for `coming` more, when one batch can run at a time."""


class AlwaysUpTo:
    """Batches of whatever is there up to a fixed size; 1 means no batching."""

    def __init__(self, size: int) -> None:
        self._size = size

    def best(self, available: int) -> int:
        """All that is there, up to the fixed size."""
        return min(available, self._size)

    def observe(self, size: int, seconds: float) -> None:
        """Nothing is learned."""

    def waiting_pays(self, ready: int, coming: int, seconds: float) -> bool:
        """Never."""
        return False


class Costs:
    """The measured cost of batches.

    Args:
        seconds: size of a batch to the seconds that it takes while all streams are busy; holds at least size 1.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self._seconds = dict(sorted(seconds.items()))
        self._observed = 1
        self._last_observed = dict.fromkeys(self._seconds, 0)
        self._seen = dict.fromkeys(self._seconds, 0)

    @property
    def seconds(self) -> dict[int, float]:
        """Size to the seconds of one batch, as known now."""
        return dict(self._seconds)

    @property
    def throughput(self) -> float:
        """Items a second of one stream in batches of the best size."""
        return max(size / seconds for size, seconds in self._seconds.items())

    def best(self, available: int) -> int:
        """The size of the highest throughput that the queue fills; the smallest of those that are about as good.

        Now and then another size is tried in its turn, so that its figure stays true as the machine's load changes;
        not where that would cost more than a small share of the throughput. At first it is tried often: what a size
        costs while pictures are decoded beside it is not what it cost on the idle machine at the start.
        """
        each = {size: seconds / size for size, seconds in self._seconds.items() if size <= available}
        limit = _GAIN * min(each.values())
        best = next(size for size in each if each[size] <= limit)
        return self._explored(best, {size: size * (cost - each[best]) for size, cost in each.items() if size != best})

    def _explored(self, best: int, extra: Mapping[int, float]) -> int:
        """The best size, or another one whose turn it is; `extra` is what a batch of that one wastes, in seconds."""
        turn, rest = divmod(self._observed, _EXPLORE_EVERY)
        if extra and not rest:
            other = list(extra)[turn % len(extra)]
            return other if extra[other] <= _EXPLORE_SHARE * _EXPLORE_EVERY * self._seconds[best] else best
        if self._observed % _EXPLORE_FIRST_EVERY:
            return best
        new = (size for size, waste in extra.items() if self._seen[size] < _FIRST and waste <= self._seconds[best] / 2)
        return next(new, best)

    def observe(self, size: int, seconds: float) -> None:
        """Move the figure of this size a little towards what was measured, further where the last one is long ago."""
        self._observed += 1
        if size in self._seconds:
            gap = min(self._observed - self._last_observed[size], _LONG_AGO)
            self._last_observed[size] = self._observed
            self._seen[size] += 1
            self._seconds[size] += (1 - (1 - _SMOOTHING) ** gap) * (seconds - self._seconds[size])

    def waiting_pays(self, ready: int, coming: int, seconds: float) -> bool:
        """Whether the items are done sooner on average when they wait and run as one batch."""
        cost = self._estimate
        together = (ready + coming) * (seconds + cost(ready + coming))
        apart = ready * cost(ready) + coming * (max(seconds, cost(ready)) + cost(coming))
        return together < apart

    def _estimate(self, count: int) -> float:
        """Seconds for any number of items, split into the sizes that there are."""
        total = 0.0
        for size in reversed(self._seconds):
            batches, count = divmod(count, size)
            total += batches * self._seconds[size]
        return total
