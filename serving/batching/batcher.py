"""Dynamic batching between the event loop and a runtime: a bounded queue and threads that prepare, run and finish.

Every thread takes the next work: it prepares (decodes) an item, and runs the batch itself if that item completes one.
If batches don't pay, one thread therefore decodes and runs each image without a hand-over. If they pay, several threads
decode for the batches, and as many batches as the runtime has streams are in flight.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from serving.batching.cost_model import BatchSizes
from serving.batching.items import BatchRequest, Item, Step, Work, call, finish_item, resolve_all
from serving.batching.scheduler import Scheduler
from serving.http.errors import RequestError, unavailable
from serving.process.startup_errors import exit_broken

logger = logging.getLogger("bentoml.halftone")

Many: TypeAlias = Sequence[Any] | npt.NDArray[Any]

_DRAIN_POLL = 0.005


class Observer(Protocol):
    """Receiver of a batcher's timings; the batcher's threads call it."""

    def waited(self, seconds: float, trace: Any, total: float | None) -> None:
        """Receive the time that an item spent in the queue that it leaves now.

        Args:
            seconds: time in this queue.
            trace: as given to `submit`.
            total: time in all queues; None if another queue follows.
        """

    def prepared(self, seconds: float, trace: Any) -> None:
        """Receive the time that the preparation of an item took; it ends now."""

    def ran(self, seconds: float, traces: Sequence[Any]) -> None:
        """Receive the time that a batch took; it ends now. There is one trace for each of its items."""


class _NullObserver:
    """Observer that ignores everything."""

    def waited(self, seconds: float, trace: Any, total: float | None) -> None:
        pass

    def prepared(self, seconds: float, trace: Any) -> None:
        pass

    def ran(self, seconds: float, traces: Sequence[Any]) -> None:
        pass


class Batcher:
    """Bounded FIFO queue with deadlines in front of a function that works on several items at once.

    Args:
        run: takes a list of prepared items and returns a sequence of as many results; called from up to `streams`
            threads at once. If it raises, each item is run once more alone, and an exception then is the result of
            that item.
        sizes: decides the number of items in a batch.
        threads: number of threads.
        parallel: number of threads that have a core at once, for estimates of durations; default: all.
        streams: most batches in flight.
        capacity: most items that wait or are in work.
        observer: receives the timings.
        clock: monotonic clock in seconds.
        name: prefix of the threads' names.
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
        self._run = self._run_alone = run
        self._scheduler = Scheduler(
            sizes=sizes, threads=threads, parallel=parallel or threads, streams=streams, capacity=capacity, clock=clock
        )
        self._observer = observer or _NullObserver()
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._idle = 0
        self._closed = False
        self._name = name
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Number of items that wait or are in work."""
        return self._scheduler.pending

    @property
    def waiting(self) -> int:
        """Number of items that no thread works on yet."""
        return self._scheduler.waiting

    def use_alone(self, run: Callable[[list[Any]], Many]) -> None:
        """Run an item with this function from now on if it is the only one pending and that is faster, as `run`."""
        with self._lock:
            self._run_alone = run
            self._scheduler.expect_alone()

    def use_sizes(self, sizes: BatchSizes) -> None:
        """Let another object decide the sizes of batches from now on."""
        with self._lock:
            self._scheduler.use_sizes(sizes)

    def check_room(self, seconds: float) -> None:
        """Refuse an item with this time allowed for which `submit` would have no room now.

        Raises:
            RequestError: 429.
        """
        with self._lock:
            self._scheduler.check_room(1, self._clock() + seconds)

    async def submit(
        self,
        values: Many,
        *,
        seconds: float,
        prepare: Step | None = None,
        finish: Step | None = None,
        trace: Any = None,
    ) -> list[Any]:
        """Work on all values, or on none if the queue has no room for all of them.

        A thread applies `prepare` to each value, then a thread runs a batch of them and applies `finish` to each
        result: no step runs on the event loop. Items that wait too long, or whose caller is cancelled, are dropped
        before a thread works on them.

        Args:
            values: the values to work on.
            seconds: time allowed for all of them.
            prepare: first step of each value.
            finish: last step of each result.
            trace: passed on to the observer.

        Returns:
            The result of each value, or the exception that it caused.

        Raises:
            RequestError: 429 if there is no room, 503 while closing, 504 if the time is up.
        """
        loop = asyncio.get_running_loop()
        now = self._clock()
        request = BatchRequest(
            loop, loop.create_future(), now + seconds, [None] * len(values), prepare, finish, trace, len(values)
        )
        if not len(values):
            return []
        self._accept([Item(request, index, value, now) for index, value in enumerate(values)])
        timer = loop.call_later(seconds, _expire, request.future)
        try:
            return await request.future
        except TimeoutError:
            raise _deadline_passed(seconds) from None
        finally:
            timer.cancel()
            if request.left:
                self._abandon(request)

    def drain(self, seconds: float = math.inf) -> bool:
        """Wait until no item is pending, while new ones are still accepted. Not to be called on the event loop.

        Args:
            seconds: longest time to wait.

        Returns:
            True if that happened in time.
        """
        end = self._clock() + seconds
        while self.pending:
            if self._clock() >= end:
                return False
            time.sleep(_DRAIN_POLL)
        return True

    def close(self) -> None:
        """Refuse new items, finish the accepted ones, and end the threads; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()
        # Breaks the reference cycle with the owner of `run`: after `gc.freeze()` the collector would never free it.
        self._run = self._run_alone = _nothing

    def _accept(self, items: list[Item]) -> None:
        with self._lock:
            if self._closed:
                raise unavailable("shutting_down", "the service is shutting down: use another replica", retry_after=1)
            self._scheduler.add(items)
            if self._idle:
                self._wake.notify(min(self._idle, len(items)))

    def _abandon(self, request: BatchRequest) -> None:
        """Drop the rest of a request whose caller is gone; its places in the queue are free at once."""
        with self._lock:
            request.abandoned = True
            self._scheduler.remove(request)
            self._wake.notify_all()

    def _work(self) -> None:
        try:
            self._loop()
        # Out of memory for the queue itself: requests would wait for this thread for ever, and so would SIGTERM.
        except BaseException as error:
            exit_broken(self._name, error)

    def _loop(self) -> None:
        """Take the next work, do it outside the lock, resolve the requests that are done, until the batcher closes."""
        work: Work | None = None
        while True:
            with self._lock:
                done = self._scheduler.settle(work) if work else []
                work = self._scheduler.next(done)
            # Before the next work or sleep: the event loop can write the responses meanwhile.
            resolve_all(done)
            if work is None and (work := self._wait()) is None:
                return
            try:
                (self._run_batch if work.run else self._prepare_one)(work)
            # Whatever it is, the thread must survive it, and the callers of these items must get an error.
            except BaseException as error:
                work.outcomes = [SystemError(f"{type(error).__name__}: {error}")] * len(work.items)

    def _wait(self) -> Work | None:
        """Sleep until there is work; return None once the batcher is closed and no item is pending."""
        while True:
            done: list[BatchRequest] = []
            with self._lock:
                work = self._scheduler.next(done)
                if work is None and not done:
                    if self._closed and not self._scheduler.pending:
                        self._wake.notify_all()
                        return None
                    self._idle += 1
                    self._wake.wait(self._scheduler.hold_seconds())
                    self._idle -= 1
            resolve_all(done)
            if work is not None:
                return work

    def _prepare_one(self, work: Work) -> None:
        (item,) = work.items
        start = self._clock()
        item.waited = start - item.since
        self._observer.waited(item.waited, item.request.trace, None)
        assert item.request.prepare is not None
        work.outcomes = [call(item.request.prepare, item.value)]
        item.since = self._clock()
        work.seconds = item.since - start
        self._observer.prepared(work.seconds, item.request.trace)

    def _run_batch(self, work: Work) -> None:
        start = self._clock()
        for item in work.items:
            waited = start - item.since
            self._observer.waited(waited, item.request.trace, item.waited + waited)
        results = call(self._run_alone if work.on_all else self._run, [item.value for item in work.items])
        if isinstance(results, Exception):
            results = self._run_one_by_one(work.items, results)
        else:
            work.seconds = self._clock() - start
            self._observer.ran(work.seconds, [item.request.trace for item in work.items])
        work.outcomes = [finish_item(item, result) for item, result in zip(work.items, results, strict=True)]

    def _run_one_by_one(self, items: list[Item], error: Exception) -> list[Any]:
        """Run each item of a failed batch alone: a bad item fails alone, and a passing failure harms no item."""
        logger.warning("a batch of %d failed, each is tried once more alone: %r", len(items), error)
        results = (call(self._run, [item.value]) for item in items)
        return [result if isinstance(result, Exception) else result[0] for result in results]


def _nothing(values: list[Any]) -> Many:
    return []


def _expire(future: asyncio.Future[list[Any]]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _deadline_passed(seconds: float) -> RequestError:
    return RequestError(
        504, "deadline_passed", f"the answer was not ready within {seconds:g} s: try again when there is less to do"
    )
