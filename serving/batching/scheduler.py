"""Which item or batch is next: the queues of a batcher, without its threads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from serving.batching.cost_model import BatchSizes
from serving.batching.items import BatchRequest, Item, Work
from serving.http.errors import RequestError

_SMOOTHING = 0.05
_SURE = 0.8
"""Share of a request's time that it may be expected to take: the expectation may be too low."""


class Scheduler:
    """Items that wait to be prepared, items that are ready to run, and how many are worked on.

    Every method is called under the batcher's lock.

    Args:
        sizes: decides how many items make a batch.
        parallel: how many threads' worth of work is done at once.
        streams: batches in flight at once.
        capacity: items that may wait or be worked on at once.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, sizes: BatchSizes, parallel: int, streams: int, capacity: int, clock: Callable[[], float]
    ) -> None:
        self.pending = 0
        self._sizes = sizes
        self._parallel = parallel
        self._streams = streams
        self._capacity = capacity
        self._clock = clock
        self._waiting: deque[Item] = deque()
        self._ready: deque[Item] = deque()
        self._preparing = self._running = 0
        self._hold_until: float | None = None
        self._prepare_seconds = self._run_seconds = 0.0

    @property
    def waiting(self) -> int:
        """Items that nobody works on yet."""
        return len(self._waiting) + len(self._ready)

    def check_room(self, count: int, deadline: float) -> None:
        """Whether `add` would take so many items that must be done by then.

        Raises:
            RequestError: 429 where there is no room for all of them, or so many wait that they would be too late.
        """
        if self.pending + count > self._capacity:
            raise self._full(f"there is room for {self._capacity}")
        if self.waiting and self._seconds(self.pending) > _SURE * (deadline - self._clock()):
            raise self._full("this one would not be done in time")

    def add(self, items: Sequence[Item]) -> None:
        """Queue all items of one request.

        Raises:
            RequestError: as `check_room`.
        """
        self.check_room(len(items), items[0].group.deadline)
        self.pending += len(items)
        self._waiting.extend(items)

    def remove(self, group: BatchRequest) -> None:
        """Forget what is queued of a request; its places are free at once."""
        before = self.waiting
        self._waiting = deque(item for item in self._waiting if item.group is not group)
        self._ready = deque(item for item in self._ready if item.group is not group)
        self.pending -= before - self.waiting

    def next(self, over: list[BatchRequest]) -> Work | None:
        """What a free thread should do now. Adds the requests that are too late to `over`."""
        self._sort_out(over)
        free = self._streams - self._running
        if self._ready and free:
            coming = len(self._waiting) + self._preparing
            size = self._sizes.best(-(-(len(self._ready) + coming) // free))
            if len(self._ready) >= size or not (self._waiting or self._hold(free)):
                return self._take(self._sizes.best(min(size, len(self._ready))), over)
        if not self._waiting:
            return None
        self._preparing += 1
        return Work([self._waiting.popleft()], run=False)

    def hold_seconds(self) -> float | None:
        """How long a thread that found nothing to do may sleep; None: until it is woken."""
        if self._hold_until is None or not self._ready:
            return None
        return max(0.0, self._hold_until - self._clock())

    def settle(self, task: Work) -> list[BatchRequest]:
        """Book what a thread has done. Returns the requests of which nothing is left to do."""
        self._learn(task)
        over = []
        for item, outcome in zip(task.items, task.outcomes, strict=True):
            group = item.group
            if not task.run and not isinstance(outcome, Exception) and not group.given_up:
                item.value = outcome
                self._ready.append(item)
                continue
            self.pending -= 1
            group.results[item.index] = outcome
            group.left -= 1
            if not group.left:
                over.append(group)
        return over

    def _learn(self, task: Work) -> None:
        if task.run:
            self._running -= 1
            if task.seconds:
                self._sizes.observe(len(task.items), task.seconds)
                self._run_seconds = _smoothed(self._run_seconds, task.seconds / len(task.items))
        else:
            self._preparing -= 1
            # What is no picture is refused sooner than a picture is decoded.
            if not isinstance(task.outcomes[0], Exception):
                self._prepare_seconds = _smoothed(self._prepare_seconds, task.seconds)

    def _seconds(self, pictures: int) -> float:
        """How long so many take, by what the last ones took."""
        return pictures * (self._prepare_seconds + self._run_seconds) / self._parallel

    def _full(self, reason: str) -> RequestError:
        wait = max(1, math.ceil(self._seconds(self.pending)))
        return RequestError(
            429,
            "too_many_requests",
            f"{self.pending} pictures are being worked on and {reason}: try again in {wait} s",
            {"Retry-After": str(wait)},
        )

    def _sort_out(self, over: list[BatchRequest]) -> None:
        """Drop what is too late from the heads of the queues, and pass on what needs no preparing."""
        now = self._clock()
        for queue in (self._ready, self._waiting):
            while queue and now > queue[0].group.deadline:
                over.append(self._drop(queue.popleft()))
        while self._waiting and self._waiting[0].group.prepare is None:
            self._ready.append(self._waiting.popleft())

    def _drop(self, item: Item) -> BatchRequest:
        self.pending -= 1
        return item.group

    def _take(self, size: int, over: list[BatchRequest]) -> Work:
        """A batch from the head of what is ready, which is on time itself; others behind it may be too late."""
        now = self._clock()
        items: list[Item] = []
        while self._ready and len(items) < size:
            item = self._ready.popleft()
            if now > item.group.deadline:
                over.append(self._drop(item))
            else:
                items.append(item)
        self._running += 1
        self._hold_until = None
        return Work(items, run=True)

    def _hold(self, free: int) -> bool:
        """Whether what is ready should wait for what other threads are preparing; once, and for no longer than that."""
        if self._hold_until is not None:
            return self._preparing > 0 and self._clock() < self._hold_until
        soon = self._prepare_seconds
        if free > 1 or not self._preparing or not self._sizes.waiting_pays(len(self._ready), self._preparing, soon):
            return False
        self._hold_until = self._clock() + soon
        return True


def _smoothed(before: float, now: float) -> float:
    """A running mean, which begins with the first value."""
    return before + _SMOOTHING * (now - before) if before else now
