"""What a batch costs, and so how many pictures to run at once: measured at the start, refined while it serves.

Where a model runs eight pictures in less than eight times the time of one (a GPU, a processor with matrix units),
batches raise the throughput; on most processors they don't, and every batch would only make its first picture wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

SIZES = (1, 2, 4, 8, 16, 32)
_GAIN = 1.03
_SMOOTHING = 0.05
_EXPLORE_EVERY = 64
_EXPLORE_WITHIN = 1.2


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
        self._observed = 0

    @property
    def seconds(self) -> dict[int, float]:
        """Size to the seconds of one batch, as known now."""
        return dict(self._seconds)

    def best(self, available: int) -> int:
        """The size of the highest throughput that the queue fills; the smallest of those that are about as good.

        Now and then a neighbour that is nearly as good is tried instead, so that its figure stays true as the
        machine's load changes.
        """
        each = {size: seconds / size for size, seconds in self._seconds.items() if size <= available}
        limit = _GAIN * min(each.values())
        best = next(size for size in each if each[size] <= limit)
        if self._observed % _EXPLORE_EVERY or len(each) == 1:
            return best
        sizes = list(each)
        place = sizes.index(best)
        neighbour = sizes[place + 1] if place + 1 < len(sizes) else sizes[place - 1]
        return neighbour if each[neighbour] <= _EXPLORE_WITHIN * each[best] else best

    def observe(self, size: int, seconds: float) -> None:
        """Move the figure of this size a little towards what was measured."""
        self._observed += 1
        if size in self._seconds:
            self._seconds[size] += _SMOOTHING * (seconds - self._seconds[size])

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


def measure(run: Callable[[int], object], *, streams: int, largest: int, seconds: float = 0.06) -> Costs:
    """Measure batches of 1, 2, 4, … on `streams` threads at once; ends where bigger ones don't pay.

    Takes about `seconds` a size: two or three sizes on a processor without matrix units.

    Args:
        run: executes a batch of the given size; called from several threads at once.
        streams: batches in flight.
        largest: biggest size to try.
        seconds: time to spend on each size, beside a first run that is not counted.
    """
    table: dict[int, float] = {}
    for size in (size for size in SIZES if size <= largest):
        table[size] = _seconds_per_batch(run, size, streams, seconds)
        before = [table[smaller] / smaller for smaller in table if smaller < size]
        if before and table[size] / size * _GAIN > min(before):
            break
    return Costs(table)


def _seconds_per_batch(run: Callable[[int], object], size: int, streams: int, seconds: float) -> float:
    """Mean seconds of a batch while `streams` threads run such batches one after the other."""
    counts = [0] * streams
    ready = threading.Barrier(streams)
    spent = [0.0] * streams

    def work(thread: int) -> None:
        run(size)
        ready.wait()
        start = now = time.monotonic()
        while now - start < seconds:
            run(size)
            counts[thread] += 1
            now = time.monotonic()
        spent[thread] = now - start

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(streams)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return sum(spent) / sum(counts)
