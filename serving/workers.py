"""A bounded pool of threads: what is accepted is done in order or refused in time, and nothing queues without end."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from serving.errors import RequestError, unavailable

Result = TypeVar("Result")

_FIRST_GUESS = 0.01
_SMOOTHING = 0.05


class _LateError(Exception):
    """A job's turn came after its deadline."""


class Workers:
    """Threads that work through a bounded, first-in-first-out queue.

    Args:
        threads: number of threads.
        capacity: jobs that may wait or run at once.
    """

    def __init__(self, threads: int, capacity: int) -> None:
        self._threads = threads
        self._capacity = capacity
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="classify")
        self._lock = threading.Lock()
        self._pending = 0
        self._seconds_per_job = _FIRST_GUESS
        self._closed = False

    @property
    def pending(self) -> int:
        """Jobs that wait or run."""
        return self._pending

    async def run(self, jobs: Sequence[Callable[[], Result]], *, seconds: float) -> list[Result | BaseException]:
        """Do all jobs, or none where the queue has no room for all of them.

        Args:
            jobs: functions without arguments, called in the pool's threads.
            seconds: time allowed for all of them; jobs that wait longer are dropped undone.

        Returns:
            For each job its result, or the exception that it raised.

        Raises:
            RequestError: 429 where there is no room, 503 while closing, 504 where the time is up.
        """
        self._reserve(len(jobs))
        deadline = time.monotonic() + seconds
        futures = [self._executor.submit(self._work, job, deadline) for job in jobs]
        for future in futures:
            future.add_done_callback(self._release)
        wrapped = [asyncio.wrap_future(future) for future in futures]
        try:
            async with asyncio.timeout(seconds):
                results = await asyncio.gather(*wrapped, return_exceptions=True)
        except TimeoutError:
            raise _too_late(seconds) from None
        if any(isinstance(result, _LateError) for result in results):
            raise _too_late(seconds)
        return list(results)

    def close(self) -> None:
        """Take nothing new, finish what was accepted, and end the threads."""
        with self._lock:
            self._closed = True
        self._executor.shutdown(wait=True)

    def _reserve(self, count: int) -> None:
        with self._lock:
            if self._closed:
                raise unavailable("shutting_down", "the service is shutting down: ask another replica", retry_after=1)
            if self._pending + count > self._capacity:
                wait = max(1, math.ceil(self._pending * self._seconds_per_job / self._threads))
                raise RequestError(
                    429,
                    "too_many_requests",
                    f"{self._pending} pictures are being worked on and there is room for {self._capacity}: "
                    f"try again in {wait} s",
                    {"Retry-After": str(wait)},
                )
            self._pending += count

    def _release(self, _: Future[Result]) -> None:
        with self._lock:
            self._pending -= 1

    def _work(self, job: Callable[[], Result], deadline: float) -> Result:
        start = time.monotonic()
        if start > deadline:
            raise _LateError
        try:
            return job()
        finally:
            # The estimate of Retry-After; a lost update between threads does no harm.
            self._seconds_per_job += _SMOOTHING * (time.monotonic() - start - self._seconds_per_job)


def _too_late(seconds: float) -> RequestError:
    return RequestError(
        504, "deadline_passed", f"the answer was not ready within {seconds:g} s: try again when there is less to do"
    )
