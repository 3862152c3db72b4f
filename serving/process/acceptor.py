"""Takes connections from a socket that several workers share, so that each of them gets about as many.

Left to themselves, the worker that wakes first takes every connection that is waiting: with the eight that a proxy
keeps open, one worker then does all the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sized
from typing import Any

from serving.process.worker_table import WorkerSlot

logger = logging.getLogger("bentoml.halftone")

_AHEAD = 1
"""Connections that a worker may have more than another one and still take the next."""
_GIVE_WAY = 0.001
"""Seconds in which a worker with more than that leaves it to the others."""
_NOT_MINE = 0.05
"""Seconds in which a worker that loads or stops leaves everything to the others."""
_NO_FILES = 1.0
"""Seconds without a new connection where the process may open no more files."""
_HANDSHAKES = 1.0
"""Seconds for connections that are being made when no more are taken."""


class ConnectionShare:
    """What a worker takes of the connections.

    Args:
        member: this worker.
        loaded: whether it has its models.
    """

    def __init__(self, member: WorkerSlot, *, loaded: Callable[[], bool] = lambda: True) -> None:
        self.member = member
        self._loaded = loaded
        self._retired = False

    def retire(self) -> None:
        """Leave new connections to the others from now on, as long as there are any that take them."""
        self._retired = True
        self.member.retire()

    def accept_delay(self, own: int) -> float:
        """Seconds to leave a connection to the others, with so many of its own.

        A worker that could only answer that it isn't ready takes none where another one does.
        """
        if not self._loaded():
            return _NOT_MINE if self.member.others_answer() else 0.0
        self.member.tell(own)
        fewest = self.member.fewest_elsewhere()
        if fewest is None:
            return 0.0
        if self._retired:
            return _NOT_MINE
        return _GIVE_WAY if own > fewest + _AHEAD else 0.0

    def accepted(self, own: int) -> None:
        """It has taken one, and has so many now."""
        if self._loaded():
            self.member.tell(own)

    def too_many(self, own: int) -> bool:
        """Whether another worker should have one of these connections: one that has taken a lost one's place, say."""
        fewest = self.member.fewest_elsewhere()
        return fewest is not None and own > fewest + _AHEAD + 1


class Acceptor:
    """Takes connections one by one, with a moment's delay where they are another worker's; as an `asyncio.Server`.

    Args:
        listener: the listening socket.
        share: this worker's.
        protocol: makes a connection's protocol.
        connections: those of this worker.
        ssl: the context of TLS, or None.
    """

    def __init__(
        self,
        listener: socket.socket,
        share: ConnectionShare,
        protocol: Callable[[], asyncio.Protocol],
        connections: Sized,
        ssl: Any,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._share = share
        self._protocol = protocol
        self._connections = connections
        self._ssl = ssl
        self._making: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        share.member.listens(True)
        # Told before anybody comes, so that workers with many connections pass some on.
        share.accept_delay(self._count())
        self._loop.add_reader(listener, self._waiting)

    def close(self) -> None:
        """Take no more; a second call does nothing more."""
        if self._closed:
            return
        self._closed = True
        self._share.retire()
        self._share.member.listens(False)
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Wait a moment for the connections that were being made, and drop those that still shake hands."""
        if self._making:
            _, late = await asyncio.wait(self._making, timeout=_HANDSHAKES)
            for task in late:
                task.cancel()

    def _count(self) -> int:
        return len(self._connections) + len(self._making)

    def _waiting(self) -> None:
        """A connection is there, for whichever worker takes it."""
        if seconds := self._share.accept_delay(self._count()):
            self._later(seconds)
        else:
            self._take()

    def _later(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._loop.add_reader(self._listener, self._waiting)
        # Nobody else had time for it, unless it is none of this worker's business.
        if self._share.accept_delay(self._count()) < _NOT_MINE:
            self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another worker was first, or the client has gone.
            return
        except OSError as error:
            if error.errno == errno.EINVAL:
                # The last of the others has shut it.
                self.close()
                return
            logger.error("no connection can be taken now: %s", error)
            self._later(_NO_FILES)
            return
        task = self._loop.create_task(self._make(connection))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        self._share.accepted(self._count())

    async def _make(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                # Where the client has gone already some systems take that for an error.
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._ssl)
        except OSError as error:
            # The client has gone, or doesn't speak TLS.
            logger.debug("a connection was not made: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
