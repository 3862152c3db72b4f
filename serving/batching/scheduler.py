"""The queues of a batcher, without its threads: admission, and the choice of the next item or batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from serving.batching.alone import AloneForm
from serving.batching.cost_model import BatchSizes
from serving.batching.items import BatchRequest, Item, Work
from serving.http.errors import RequestError

_SMOOTHING = 0.05
_DEADLINE_SHARE = 0.8
"""Largest share of a request's time that its expected duration may take: the expectation may be too low."""
_STUCK = 10
"""Work that takes this many times as long as usual is expected to take as long again."""


class Scheduler:
    """Queue of the items to prepare, queue of the items that are ready to run, and counts of those in work.

    Every method is to be called under the batcher's lock.

    Args:
        sizes: decides the number of items in a batch.
        threads: number of threads.
        parallel: number of threads that have a core at once.
        streams: most batches in flight.
        capacity: most items that wait or are in work.
        clock: monotonic clock in seconds.
    """

    def __init__(
        self, *, sizes: BatchSizes, threads: int, parallel: int, streams: int, capacity: int, clock: Callable[[], float]
    ) -> None:
        self.pending = 0
        self._sizes = sizes
        self._threads = threads
        self._parallel = parallel
        self._streams = streams
        self._capacity = capacity
        self._clock = clock
        self._waiting: deque[Item] = deque()
        self._ready: deque[Item] = deque()
        self._preparing = self._running = 0
        self._started: dict[Work, float] = {}
        self._hold_until: float | None = None
        self._alone: AloneForm | None = None
        self._prepare_seconds = self._run_seconds = 0.0

    @property
    def waiting(self) -> int:
        """Number of items that no thread works on yet."""
        return len(self._waiting) + len(self._ready)

    def expect_alone(self) -> None:
        """Let some work on the only pending item run on all cores from now on; no estimate learns its duration."""
        self._alone = AloneForm()

    def use_sizes(self, sizes: BatchSizes) -> None:
        """Let another object decide the sizes of batches from now on."""
        self._sizes = sizes

    def check_room(self, count: int, deadline: float) -> None:
        """Refuse `count` items for which `add` would have no room now.

        Raises:
            RequestError: 429 if there is no room for all of them, or they would miss their deadline behind the others.
        """
        if self.pending + count > self._capacity:
            raise self._full(f"there is room for {self._capacity}")
        stuck = self._stuck_seconds()
        if not self.waiting and not stuck:
            return
        if stuck + self._expected_seconds(self.pending) > _DEADLINE_SHARE * (deadline - self._clock()):
            raise self._full("this one would not be done in time")

    def add(self, items: Sequence[Item]) -> None:
        """Queue all items of one request.

        Raises:
            RequestError: as `check_room`.
        """
        self.check_room(len(items), items[0].request.deadline)
        self.pending += len(items)
        self._waiting.extend(items)

    def remove(self, request: BatchRequest) -> None:
        """Drop the queued items of a request; their places are free at once."""
        before = self.waiting
        self._waiting = deque(item for item in self._waiting if item.request is not request)
        self._ready = deque(item for item in self._ready if item.request is not request)
        self.pending -= before - self.waiting

    def next(self, done: list[BatchRequest]) -> Work | None:
        """Return the next work of a free thread, if any; add requests past their deadline to `done`."""
        work = self._next(done)
        if work is not None:
            self._started[work] = self._clock()
        return work

    def _next(self, done: list[BatchRequest]) -> Work | None:
        self._drop_expired(done)
        self._skip_preparation()
        free = self._streams - self._running
        if self._ready and free:
            coming = len(self._waiting) + self._preparing
            size = self._sizes.best(-(-(len(self._ready) + coming) // free))
            if len(self._ready) >= size or not (self._waiting or self._should_hold(free)):
                return self._take_batch(self._sizes.best(min(size, len(self._ready))), done)
        if not self._waiting:
            return None
        self._preparing += 1
        return Work([self._waiting.popleft()], run=False)

    def hold_seconds(self) -> float | None:
        """Return the longest sleep of a thread that found no work; None: until it is woken."""
        if self._hold_until is None or not self._ready:
            return None
        return max(0.0, self._hold_until - self._clock())

    def settle(self, work: Work) -> list[BatchRequest]:
        """Record the outcomes of a thread's work; return the requests that are done now."""
        self._started.pop(work)
        self._update_averages(work)
        done = []
        for item, outcome in zip(work.items, work.outcomes, strict=True):
            request = item.request
            if not work.run and not isinstance(outcome, Exception) and not request.abandoned:
                item.value = outcome
                self._ready.append(item)
                continue
            self.pending -= 1
            request.results[item.index] = outcome
            request.left -= 1
            if not request.left:
                done.append(request)
        return done

    def _update_averages(self, work: Work) -> None:
        if work.run:
            self._running -= 1
            if work.alone and self._alone is not None and work.seconds:
                self._alone.observe(work.on_all, work.seconds)
            # The first one is better than no estimate.
            if work.seconds and not (work.on_all and self._run_seconds):
                self._sizes.observe(len(work.items), work.seconds)
                self._run_seconds = _smoothed(self._run_seconds, work.seconds / len(work.items))
        else:
            self._preparing -= 1
            # A file that is no image fails faster than an image is decoded: it does not count.
            if not isinstance(work.outcomes[0], Exception):
                self._prepare_seconds = _smoothed(self._prepare_seconds, work.seconds)

    def _expected_seconds(self, items: int) -> float:
        """Return the time that this many items will take at the recent pace."""
        return items * (self._prepare_seconds + self._run_seconds) / self._parallel

    def _stuck_seconds(self) -> float:
        """Return how long no thread is expected to be free; 0.0 if one is, or none works longer than usual."""
        if len(self._started) < self._threads:
            return 0.0
        seconds = self._clock() - max(self._started.values())
        usual = max(self._prepare_seconds, self._run_seconds * max(len(work.items) for work in self._started))
        return seconds if seconds > _STUCK * usual else 0.0

    def _full(self, reason: str) -> RequestError:
        wait = max(1, math.ceil(self._stuck_seconds() + self._expected_seconds(self.pending)))
        return RequestError(
            429,
            "too_many_requests",
            f"{self.pending} pictures are being worked on and {reason}: try again in {wait} s",
            {"Retry-After": str(wait)},
        )

    def _drop_expired(self, done: list[BatchRequest]) -> None:
        """Drop items past their deadline from the heads of the queues."""
        now = self._clock()
        for queue in (self._ready, self._waiting):
            while queue and now > queue[0].request.deadline:
                done.append(self._drop(queue.popleft()))

    def _skip_preparation(self) -> None:
        """Move items that need no preparation from the head of the first queue to the second."""
        while self._waiting and self._waiting[0].request.prepare is None:
            self._ready.append(self._waiting.popleft())

    def _drop(self, item: Item) -> BatchRequest:
        self.pending -= 1
        return item.request

    def _take_batch(self, size: int, done: list[BatchRequest]) -> Work:
        """Take a batch from the ready items; the first one is on time, others behind it may have expired."""
        now = self._clock()
        items: list[Item] = []
        while self._ready and len(items) < size:
            item = self._ready.popleft()
            if now > item.request.deadline:
                done.append(self._drop(item))
            else:
                items.append(item)
        self._running += 1
        self._hold_until = None
        work = Work(items, run=True)
        if self._alone is not None and self.pending == len(items) == 1:
            work.alone, work.on_all = True, self._alone.on_all()
        return work

    def _should_hold(self, free: int) -> bool:
        """Return True if the ready items should wait, once, for the items that other threads are preparing."""
        if self._hold_until is not None:
            return self._preparing > 0 and self._clock() < self._hold_until
        wait = self._prepare_seconds
        if free > 1 or not self._preparing or not self._sizes.waiting_pays(len(self._ready), self._preparing, wait):
            return False
        self._hold_until = self._clock() + wait
        return True


def _smoothed(before: float, now: float) -> float:
    """Return an exponential moving average that starts with the first value."""
    return before + _SMOOTHING * (now - before) if before else now
