"""Bounded queue of work for idle time, and the thread that does it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from serving.process.priority import lower_priority

Item = TypeVar("Item")

MOST_WAITING = 64
"""Most items that wait for idle time; further ones are dropped and counted."""

MOST_BYTES = 32 * 2**20
"""Most bytes of the items that wait."""

_POLL_SECONDS = 0.01


class Upkeep(NamedTuple):
    """What the thread does at its start, and when no item has come for a while."""

    do: Callable[[], object]
    """Must not raise."""

    seconds: float


class IdleWork(Generic[Item]):
    """Queue that requests fill without waiting, and a thread that empties it while the service has no other work.

    Before `start`, items wait.

    Args:
        work: called with each item; must not raise.
        idle: returns True if the service has no other work now.
        dropped: called for each item for which there is no room.
        name: of the thread.
        longest_wait: seconds after which an item is taken even if the service is never idle; None: no item is.
        lowest: the thread runs on idle cores only. Not if it shares a runtime with requests, which would then wait for
            a thread that other processes keep from its core.
        upkeep: further work of the thread, which doesn't wait for idle time.
    """

    def __init__(
        self,
        work: Callable[[Item], object],
        *,
        idle: Callable[[], bool],
        dropped: Callable[[], object],
        name: str,
        longest_wait: float | None = None,
        lowest: bool = True,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._work = work
        self._idle = idle
        self._dropped = dropped
        self._longest_wait = longest_wait
        self._lowest = lowest
        self._upkeep = upkeep
        self._waiting: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._working = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, make: Callable[[], Item], size: int) -> None:
        """Append an item unless there is no room; does not block.

        Args:
            make: returns the item; called only if there is room.
            size: bytes of the item.
        """
        with self._lock:
            fits = len(self._waiting) < MOST_WAITING and self._bytes + size <= MOST_BYTES
            if fits:
                try:
                    self._waiting.append((make(), size))
                    self._bytes += size
                except MemoryError:
                    # The response must not fail for lack of memory here.
                    fits = False
        if fits:
            self._wake.set()
        else:
            self._dropped()

    def drop(self) -> None:
        """Drop the waiting items."""
        with self._lock:
            self._waiting.clear()
            self._bytes = 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Wait until the thread is between two items, and keep it there meanwhile."""
        with self._working:
            yield

    def stop(self) -> None:
        """Let the thread end once its present item is done, and drop the waiting ones."""
        self._closed = True
        self._wake.set()
        self.drop()

    def close(self) -> None:
        """Stop, and wait for the end of the thread."""
        self.stop()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        if self._lowest:
            lower_priority()
        self._maintain()
        while not self._closed:
            if not self._wake.wait(self._upkeep.seconds if self._upkeep else None):
                self._maintain()
            self._wake.clear()
            while self._waiting and not self._closed:
                if self._may_work():
                    self._do_next()
        # An item may have come after `stop`.
        self.drop()
        # Breaks the reference cycle with the owner of `work` and of `upkeep`.
        self._work, self._upkeep = _nothing, None

    def _maintain(self) -> None:
        if self._upkeep:
            with self._working:
                self._upkeep.do()

    def _may_work(self) -> bool:
        """Wait for idle time or for the longest wait; return False if the queue was closed or emptied meanwhile."""
        since = time.monotonic()
        while not self._idle():
            if self._longest_wait is not None and time.monotonic() - since > self._longest_wait:
                break
            time.sleep(_POLL_SECONDS)
            if self._closed or not self._waiting:
                return False
        return True

    def _do_next(self) -> None:
        with self._working:
            with self._lock:
                # `drop` may have emptied the queue meanwhile.
                if not self._waiting:
                    return
                item, size = self._waiting.popleft()
                self._bytes -= size
            self._work(item)


def _nothing(item: object) -> None:
    pass
