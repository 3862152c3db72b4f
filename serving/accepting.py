"""Takes connections from a socket that several workers share, so that each of them gets about as many.

Left to themselves, the worker that wakes first takes every connection that is waiting: with the eight that a proxy
keeps open, one worker then does all the work.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any

logger = logging.getLogger("bentoml.halftone")

MOST_WORKERS = 256

_NUMBER_BYTES = 8
_AHEAD = 1
"""Connections that a worker may have more than another one and still take the next."""
_GIVE_WAY = 0.001
"""Seconds in which a worker with more than that leaves it to the others."""
_LOADING = 0.05
"""Seconds in which a worker without its models leaves everything to the others."""
_NO_FILES = 1.0
"""Seconds without a new connection where the process may open no more files."""


class Shares:
    """How many connections each worker has, in memory that they share.

    Args:
        meeting: folder of the workers.
        number: of this one, from 1 on.
        loaded: whether this one has its models; until then it only takes connections while it is the only one.
    """

    def __init__(self, meeting: Path, number: int, *, loaded: Callable[[], bool] = lambda: True) -> None:
        self.loaded = loaded
        size = _NUMBER_BYTES * MOST_WORKERS
        descriptor = os.open(meeting / "connections", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        # One more than there are; 0 where a worker takes none.
        self._counts = memoryview(self._memory).cast("q")
        self._place = number - 1

    def tell(self, count: int) -> None:
        """This worker takes connections and has so many."""
        self._counts[self._place] = count + 1

    def leave(self) -> None:
        """This worker takes no more connections."""
        self._counts[self._place] = 0

    def fewest_elsewhere(self) -> int | None:
        """How many the worker has that has the fewest of all others; None where there is no other one."""
        counts = self._counts.tolist()
        counts[self._place] = 0
        return min((count - 1 for count in counts if count), default=None)


class Acceptor:
    """Takes connections one by one, with a moment's delay where another worker has fewer; as an `asyncio.Server`.

    Args:
        listener: the listening socket.
        shares: of the workers.
        protocol: makes a connection's protocol.
        connections: those of this worker.
        ssl: the context of TLS, or None.
    """

    def __init__(
        self,
        listener: socket.socket,
        shares: Shares,
        protocol: Callable[[], asyncio.Protocol],
        connections: Sized,
        ssl: Any,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._shares = shares
        self._protocol = protocol
        self._connections = connections
        self._ssl = ssl
        self._making: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        shares.tell(self._count())
        self._loop.add_reader(listener, self._waiting)

    def close(self) -> None:
        """Take no more; a second call does nothing more."""
        self._shares.leave()
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Wait until the connections that were being made are made."""
        await asyncio.gather(*self._making)

    def _count(self) -> int:
        return len(self._connections) + len(self._making)

    def _waiting(self) -> None:
        """A connection is there, for whichever worker takes it."""
        own, fewest = self._count(), self._shares.fewest_elsewhere()
        self._shares.tell(own)
        if self._must_leave_it(fewest):
            self._rest(_LOADING)
        elif fewest is not None and own > fewest + _AHEAD:
            self._rest(_GIVE_WAY)
        else:
            self._take()

    def _must_leave_it(self, fewest: int | None) -> bool:
        """Whether this worker could only say that it isn't ready, where another one is."""
        return fewest is not None and not self._shares.loaded()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._loop.add_reader(self._listener, self._waiting)
        # Nobody else may have time for it.
        if not self._must_leave_it(self._shares.fewest_elsewhere()):
            self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another worker was first, or the client has gone.
            return
        except OSError as error:
            logger.error("no connection can be taken now: %s", error)
            self._rest(_NO_FILES)
            return
        connection.setblocking(False)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._make(connection))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        self._shares.tell(self._count())

    async def _make(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._ssl)
        except OSError as error:
            # The client has gone, or doesn't speak TLS.
            logger.debug("a connection was not made: %s", error)
            connection.close()
