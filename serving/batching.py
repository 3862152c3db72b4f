"""Between the event loop and a runtime: a bounded queue, threads that decode and run, and batches where they pay.

Every thread takes whatever is next: it decodes a picture, and where that makes up a batch it runs the batch itself.
Where batches don't pay, each picture is therefore decoded and run by one thread without being handed over; where they
do, several threads decode for the batches, and as many batches as the runtime has streams are in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy.typing as npt

from serving.costs import BatchSizes
from serving.errors import RequestError, unavailable

_SMOOTHING = 0.05

Many: TypeAlias = Sequence[Any] | npt.NDArray[Any]
Prepare = Callable[[Any], Any]
Finish = Callable[[Any], Any]


class Observer:
    """Is told how long things take; this one ignores it. Called from the batcher's threads."""

    def waited(self, seconds: float, trace: Any, total: float | None) -> None:
        """A picture of a submit with this trace leaves a queue now after this long.

        `total` is the time in all its queues, and None where another one follows.
        """

    def prepared(self, seconds: float, trace: Any) -> None:
        """A picture was decoded in this time, which ends now."""

    def ran(self, seconds: float, traces: Sequence[Any]) -> None:
        """A batch was run in this time, which ends now; one trace for each of its pictures."""


@dataclass(eq=False, slots=True)
class _Group:
    """What one request asked for: answered once, when nothing of it is left to do."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    deadline: float
    results: list[Any]
    prepare: Prepare | None
    finish: Finish | None
    run: bool
    trace: Any
    left: int
    given_up: bool = False


@dataclass(eq=False, slots=True)
class _Item:
    """One picture of a group."""

    group: _Group
    index: int
    value: Any
    since: float
    waited: float = 0.0


@dataclass(eq=False, slots=True)
class _Task:
    """What a thread does next: prepare one item, or run a batch."""

    items: list[_Item]
    run: bool
    outcomes: list[Any] = field(default_factory=list)
    seconds: float = 0.0


class Batcher:
    """A bounded, first-in-first-out queue in front of a function that works on several items at once.

    Args:
        run: takes a list of prepared items and returns a sequence of as many results; called from up to `streams`
            threads at once. Where it raises on a batch, the items are tried once more one by one.
        sizes: decides how many items make a batch.
        threads: threads that prepare and run.
        streams: batches in flight at once.
        capacity: items that may wait or be worked on at once.
        observer: is told how long things take.
        clock: monotonic seconds.
        name: of the threads.
    """

    def __init__(
        self,
        run: Callable[[list[Any]], Many],
        *,
        sizes: BatchSizes,
        threads: int,
        streams: int,
        capacity: int,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "classify",
    ) -> None:
        self._run = run
        self._sizes = sizes
        self._streams = streams
        self._capacity = capacity
        self._observer = observer or Observer()
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._waiting: deque[_Item] = deque()
        self._ready: deque[_Item] = deque()
        self._pending = self._preparing = self._running = self._idle = 0
        self._hold_until: float | None = None
        self._prepare_seconds = self._run_seconds = 0.0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Items that wait or are worked on."""
        return self._pending

    @property
    def waiting(self) -> int:
        """Items that nobody works on yet."""
        return len(self._waiting) + len(self._ready)

    async def submit(
        self,
        values: Many,
        *,
        seconds: float,
        prepare: Prepare | None = None,
        finish: Finish | None = None,
        run: bool = True,
        trace: Any = None,
    ) -> list[Any]:
        """Work on all values, or on none where the queue has no room for all of them.

        What waits longer than allowed, or whose caller was cancelled, is dropped before it costs anything.

        Args:
            values: what to work on.
            seconds: time allowed for all of them.
            prepare: applied to each value by itself first.
            finish: applied to each result by itself last.
            run: whether the items go through the batcher's function at all.
            trace: handed on to the observer.

        Returns:
            For each value its result, or the exception that it caused.

        Raises:
            RequestError: 429 where there is no room, 503 while closing, 504 where the time is up.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        group = _Group(
            loop, loop.create_future(), now + seconds, [None] * len(values), prepare, finish, run, trace, len(values)
        )
        if not len(values):
            return []
        self._accept([_Item(group, index, value, now) for index, value in enumerate(values)])
        timer = loop.call_later(seconds, _expire, group.future)
        try:
            return await group.future
        except TimeoutError:
            raise _too_late(seconds) from None
        finally:
            timer.cancel()
            if group.left:
                self._give_up(group)

    def close(self) -> None:
        """Take nothing new, finish what was accepted, and end the threads."""
        with self._lock:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _accept(self, items: list[_Item]) -> None:
        with self._lock:
            if self._closed:
                raise unavailable("shutting_down", "the service is shutting down: ask another replica", retry_after=1)
            if self._pending + len(items) > self._capacity:
                raise self._full()
            self._pending += len(items)
            self._waiting.extend(items)
            if self._idle:
                self._wake.notify(min(self._idle, len(items)))

    def _full(self) -> RequestError:
        wait = max(1, math.ceil(self._pending * (self._prepare_seconds + self._run_seconds) / len(self._threads)))
        return RequestError(
            429,
            "too_many_requests",
            f"{self._pending} pictures are being worked on and there is room for {self._capacity}: "
            f"try again in {wait} s",
            {"Retry-After": str(wait)},
        )

    def _give_up(self, group: _Group) -> None:
        """Drop what is left of a request whose caller is gone; its places in the queue are free at once."""
        with self._lock:
            group.given_up = True
            before = len(self._waiting) + len(self._ready)
            self._waiting = deque(item for item in self._waiting if item.group is not group)
            self._ready = deque(item for item in self._ready if item.group is not group)
            self._pending -= before - len(self._waiting) - len(self._ready)
            self._wake.notify_all()

    def _work(self) -> None:
        """A thread's life: take what is next, do it outside the lock, tell the callers."""
        task: _Task | None = None
        while True:
            with self._lock:
                over = self._settle(task) if task else []
                task = self._next(over)
            # Before anything else is begun or waited for: the event loop can write the answers meanwhile.
            _answer(over)
            if task is None and (task := self._wait()) is None:
                return
            if task.run:
                self._run_batch(task)
            else:
                self._prepare_one(task)

    def _wait(self) -> _Task | None:
        """Sleep until there is something to do; None when the batcher is closed and all is done."""
        while True:
            over: list[_Group] = []
            with self._lock:
                task = self._next(over)
                if task is None and not over:
                    if self._closed and not self._pending:
                        self._wake.notify_all()
                        return None
                    self._idle += 1
                    self._wake.wait(self._hold_seconds())
                    self._idle -= 1
            _answer(over)
            if task is not None:
                return task

    def _next(self, over: list[_Group]) -> _Task | None:
        """What a free thread should do now; called under the lock. Adds the requests that are too late to `over`."""
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
        return _Task([self._waiting.popleft()], run=False)

    def _sort_out(self, over: list[_Group]) -> None:
        """Drop what is too late from the heads of the queues, and pass on what needs no preparing."""
        now = self._clock()
        for queue in (self._ready, self._waiting):
            while queue and now > queue[0].group.deadline:
                over.append(self._drop(queue.popleft()))
        while self._waiting and self._waiting[0].group.prepare is None:
            self._ready.append(self._waiting.popleft())

    def _drop(self, item: _Item) -> _Group:
        self._pending -= 1
        return item.group

    def _take(self, size: int, over: list[_Group]) -> _Task:
        """A batch from the head of what is ready, which is on time itself; others behind it may be too late."""
        now = self._clock()
        items: list[_Item] = []
        while self._ready and len(items) < size:
            item = self._ready.popleft()
            if now > item.group.deadline:
                over.append(self._drop(item))
            else:
                items.append(item)
        self._running += 1
        self._hold_until = None
        return _Task(items, run=True)

    def _hold(self, free: int) -> bool:
        """Whether what is ready should wait for what other threads are preparing; once, and for no longer than that."""
        if self._hold_until is not None:
            return self._preparing > 0 and self._clock() < self._hold_until
        soon = self._prepare_seconds
        if free > 1 or not self._preparing or not self._sizes.waiting_pays(len(self._ready), self._preparing, soon):
            return False
        self._hold_until = self._clock() + soon
        return True

    def _hold_seconds(self) -> float | None:
        if self._hold_until is None or not self._ready:
            return None
        return max(0.0, self._hold_until - self._clock())

    def _prepare_one(self, task: _Task) -> None:
        (item,) = task.items
        start = self._clock()
        item.waited = start - item.since
        self._observer.waited(item.waited, item.group.trace, None if item.group.run else item.waited)
        assert item.group.prepare is not None
        task.outcomes = [_outcome(item.group.prepare, item.value)]
        item.since = self._clock()
        task.seconds = item.since - start
        self._observer.prepared(task.seconds, item.group.trace)

    def _run_batch(self, task: _Task) -> None:
        start = self._clock()
        for item in task.items:
            waited = start - item.since
            self._observer.waited(waited, item.group.trace, item.waited + waited)
        results = _outcome(self._run, [item.value for item in task.items])
        task.seconds = self._clock() - start
        if isinstance(results, Exception):
            results = self._one_by_one(task.items, results)
        else:
            self._observer.ran(task.seconds, [item.group.trace for item in task.items])
        task.outcomes = [_finished(item, result) for item, result in zip(task.items, results, strict=True)]

    def _one_by_one(self, items: list[_Item], error: Exception) -> list[Any]:
        """Each item's own result after a batch failed, so that one bad item fails alone."""
        if len(items) == 1:
            return [error]
        results = (_outcome(self._run, [item.value]) for item in items)
        return [result if isinstance(result, Exception) else result[0] for result in results]

    def _settle(self, task: _Task) -> list[_Group]:
        """Book what a thread has done; called under the lock. Returns the requests of which nothing is left to do."""
        if task.run:
            self._running -= 1
            self._sizes.observe(len(task.items), task.seconds)
            self._run_seconds += _SMOOTHING * (task.seconds / len(task.items) - self._run_seconds)
        else:
            self._preparing -= 1
            self._prepare_seconds += _SMOOTHING * (task.seconds - self._prepare_seconds)
        over = []
        for item, outcome in zip(task.items, task.outcomes, strict=True):
            group = item.group
            if not task.run and group.run and not isinstance(outcome, Exception) and not group.given_up:
                item.value = outcome
                self._ready.append(item)
                continue
            self._pending -= 1
            group.results[item.index] = outcome
            group.left -= 1
            if not group.left:
                over.append(group)
        return over


def _outcome(function: Callable[[Any], Any], value: Any) -> Any:
    """The function's result, or the exception that it raised."""
    try:
        return function(value)
    except Exception as error:
        return error


def _finished(item: _Item, result: Any) -> Any:
    finish = item.group.finish
    return result if finish is None or isinstance(result, Exception) else _outcome(finish, result)


def _answer(groups: list[_Group]) -> None:
    """Tell the callers, each on its own event loop."""
    for group in groups:
        # A closed loop has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            group.loop.call_soon_threadsafe(_resolve, group)


def _resolve(group: _Group) -> None:
    if group.future.done():
        return
    if group.left:
        group.future.set_exception(TimeoutError())
    else:
        group.future.set_result(group.results)


def _expire(future: asyncio.Future[list[Any]]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _too_late(seconds: float) -> RequestError:
    return RequestError(
        504, "deadline_passed", f"the answer was not ready within {seconds:g} s: try again when there is less to do"
    )
