"""Between the event loop and a runtime: a bounded queue, threads that decode and run, and batches where they pay.

Every thread takes whatever is next: it decodes a picture, and where that makes up a batch it runs the batch itself.
Where batches don't pay, each picture is therefore decoded and run by one thread without being handed over; where they
do, several threads decode for the batches, and as many batches as the runtime has streams are in flight.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt

from serving.batching.cost_model import BatchSizes
from serving.batching.items import BatchRequest, Finish, Item, Observer, Prepare, Work, answer, finished, outcome
from serving.batching.scheduler import Scheduler
from serving.http.errors import RequestError, unavailable

logger = logging.getLogger("bentoml.halftone")

Many: TypeAlias = Sequence[Any] | npt.NDArray[Any]

_DRAIN_POLL = 0.005


class Batcher:
    """A bounded, first-in-first-out queue in front of a function that works on several items at once.

    Args:
        run: takes a list of prepared items and returns a sequence of as many results; called from up to `streams`
            threads at once. Where it raises, each item is tried once more alone, and what it raises then is the
            item's own result.
        sizes: decides how many items make a batch.
        threads: threads that prepare and run.
        parallel: how many of them find a core at once, for estimates of when something is done; all where not given.
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
        parallel: int | None = None,
        streams: int,
        capacity: int,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "classify",
    ) -> None:
        self._run = run
        self._schedule = Scheduler(
            sizes=sizes, parallel=parallel or threads, streams=streams, capacity=capacity, clock=clock
        )
        self._observer = observer or Observer()
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._idle = 0
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Items that wait or are worked on."""
        return self._schedule.pending

    @property
    def waiting(self) -> int:
        """Items that nobody works on yet."""
        return self._schedule.waiting

    def check_room(self, seconds: float) -> None:
        """Whether `submit` would take one item more now, with so many seconds for it.

        Raises:
            RequestError: 429 where it would not.
        """
        with self._lock:
            self._schedule.check_room(1, self._clock() + seconds)

    async def submit(
        self,
        values: Many,
        *,
        seconds: float,
        prepare: Prepare | None = None,
        finish: Finish | None = None,
        trace: Any = None,
    ) -> list[Any]:
        """Work on all values, or on none where the queue has no room for all of them.

        What waits longer than allowed, or whose caller was cancelled, is dropped before it costs anything.

        Args:
            values: what to work on.
            seconds: time allowed for all of them.
            prepare: applied to each value by itself first.
            finish: applied to each result by itself last.
            trace: handed on to the observer.

        Returns:
            For each value its result, or the exception that it caused.

        Raises:
            RequestError: 429 where there is no room, 503 while closing, 504 where the time is up.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        group = BatchRequest(
            loop, loop.create_future(), now + seconds, [None] * len(values), prepare, finish, trace, len(values)
        )
        if not len(values):
            return []
        self._accept([Item(group, index, value, now) for index, value in enumerate(values)])
        timer = loop.call_later(seconds, _expire, group.future)
        try:
            return await group.future
        except TimeoutError:
            raise _too_late(seconds) from None
        finally:
            timer.cancel()
            if group.left:
                self._give_up(group)

    def drain(self, seconds: float = math.inf) -> bool:
        """Wait until nothing waits or is worked on; it goes on taking what is new. Not to be called on the event loop.

        Args:
            seconds: longest time to wait.

        Returns:
            Whether that came about in time.
        """
        end = self._clock() + seconds
        while self.pending:
            if self._clock() >= end:
                return False
            time.sleep(_DRAIN_POLL)
        return True

    def close(self) -> None:
        """Take nothing new, finish what was accepted, and end the threads; a second call does nothing more."""
        with self._lock:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        # What it belongs to can go at once: no circle is left for a collector that is told to look no more.
        self._run = _nothing

    def _accept(self, items: list[Item]) -> None:
        with self._lock:
            if self._closed:
                raise unavailable("shutting_down", "the service is shutting down: ask another replica", retry_after=1)
            self._schedule.add(items)
            if self._idle:
                self._wake.notify(min(self._idle, len(items)))

    def _give_up(self, group: BatchRequest) -> None:
        """Drop what is left of a request whose caller is gone; its places in the queue are free at once."""
        with self._lock:
            group.given_up = True
            self._schedule.remove(group)
            self._wake.notify_all()

    def _work(self) -> None:
        """A thread's life: take what is next, do it outside the lock, tell the callers."""
        task: Work | None = None
        while True:
            with self._lock:
                over = self._schedule.settle(task) if task else []
                task = self._schedule.next(over)
            # Before anything else is begun or waited for: the event loop can write the answers meanwhile.
            answer(over)
            if task is None and (task := self._wait()) is None:
                return
            try:
                (self._run_batch if task.run else self._prepare_one)(task)
            # The thread must live on, whatever it is: whoever waits for these items is told.
            except BaseException as error:
                task.outcomes = [SystemError(f"{type(error).__name__}: {error}")] * len(task.items)

    def _wait(self) -> Work | None:
        """Sleep until there is something to do; None when the batcher is closed and all is done."""
        while True:
            over: list[BatchRequest] = []
            with self._lock:
                task = self._schedule.next(over)
                if task is None and not over:
                    if self._closed and not self._schedule.pending:
                        self._wake.notify_all()
                        return None
                    self._idle += 1
                    self._wake.wait(self._schedule.hold_seconds())
                    self._idle -= 1
            answer(over)
            if task is not None:
                return task

    def _prepare_one(self, task: Work) -> None:
        (item,) = task.items
        start = self._clock()
        item.waited = start - item.since
        self._observer.waited(item.waited, item.group.trace, None)
        assert item.group.prepare is not None
        task.outcomes = [outcome(item.group.prepare, item.value)]
        item.since = self._clock()
        task.seconds = item.since - start
        self._observer.prepared(task.seconds, item.group.trace)

    def _run_batch(self, task: Work) -> None:
        start = self._clock()
        for item in task.items:
            waited = start - item.since
            self._observer.waited(waited, item.group.trace, item.waited + waited)
        results = outcome(self._run, [item.value for item in task.items])
        if isinstance(results, Exception):
            results = self._one_by_one(task.items, results)
        else:
            task.seconds = self._clock() - start
            self._observer.ran(task.seconds, [item.group.trace for item in task.items])
        task.outcomes = [finished(item, result) for item, result in zip(task.items, results, strict=True)]

    def _one_by_one(self, items: list[Item], error: Exception) -> list[Any]:
        """Each item's own result after a batch failed: a bad item fails alone, and a failure that passes harms none."""
        logger.warning("a batch of %d failed, each is tried once more alone: %r", len(items), error)
        results = (outcome(self._run, [item.value]) for item in items)
        return [result if isinstance(result, Exception) else result[0] for result in results]


def _nothing(values: list[Any]) -> Many:
    return []


def _expire(future: asyncio.Future[list[Any]]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _too_late(seconds: float) -> RequestError:
    return RequestError(
        504, "deadline_passed", f"the answer was not ready within {seconds:g} s: try again when there is less to do"
    )
