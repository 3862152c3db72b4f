"""The load generator in a separate process, so that reports, plots and progress never delay a request."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import signal
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Self

from loadtest.client.connection import loop_factory
from loadtest.openloop.load import closed_loop, open_loop, poisson
from loadtest.openloop.samples import Run, Target


class Generator:
    """A context manager around the process; each method waits for the end of its run."""

    def __enter__(self) -> Self:
        # Spawned and not forked: the parent has threads.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_prepare)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def poisson(self, target: Target, *, rate: float, seconds: float, seed: int) -> Run:
        """Send requests at random times, `rate` a second on average."""
        return self._pool.submit(_open, target, rate, seconds, seed).result()

    def closed(self, target: Target, *, clients: int, seconds: float, think: float = 0.0) -> Run:
        """Let clients send requests that each wait for their responses, then for `think` seconds on average."""
        return self._pool.submit(_closed, target, clients, seconds, think).result()


def _prepare() -> None:
    # Ctrl-C reaches the whole process group; the parent ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open(target: Target, rate: float, seconds: float, seed: int) -> Run:
    times = poisson(rate, seconds, seed)
    return _run(lambda: open_loop(target, times))


def _closed(target: Target, clients: int, seconds: float, think: float) -> Run:
    return _run(lambda: closed_loop(target, clients, seconds, think))


def _run(make: Callable[[], Coroutine[Any, Any, Run]]) -> Run:
    # A garbage collection during the run would look like a slow server.
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(make())
    finally:
        gc.enable()
