"""Accept connections from a listening socket shared by several workers, balanced by the number of open connections.

Without balancing, the worker that wakes first accepts every waiting connection: with the eight connections that a proxy
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
"""Connections that a worker may have more than the least busy one and still accept the next one at once."""

_BUSIER_DELAY = 0.001
"""Seconds for which a worker with more than that leaves a connection to the others."""

_INACTIVE_DELAY = 0.05
"""Seconds for which a worker that loads its models or stops leaves a connection to the others."""

_NO_FILES_DELAY = 1.0
"""Seconds without a new connection after the process reached its limit of open files."""

_HANDSHAKE_TIMEOUT = 1.0
"""Seconds for handshakes that are under way when the acceptor closes."""


class ConnectionShare:
    """One worker's share of the connections.

    Args:
        slot: of this worker.
        loaded: returns True once the worker has its models.
    """

    def __init__(self, slot: WorkerSlot, *, loaded: Callable[[], bool] = lambda: True) -> None:
        self.slot = slot
        self._loaded = loaded
        self._retired = False

    def retire(self) -> None:
        """Leave new connections to the other workers from now on, as long as any of them accepts some."""
        self._retired = True
        self.slot.retire()

    def accept_delay(self, own: int) -> float:
        """Return the seconds for which to leave a waiting connection to the others.

        A worker that could only respond that it isn't ready leaves connections to one that is ready, if there is one.

        Args:
            own: number of this worker's connections.
        """
        if not self._loaded():
            return _INACTIVE_DELAY if self.slot.another_is_ready() else 0.0
        self.slot.publish_connections(own)
        fewest = self.slot.fewest_elsewhere()
        if fewest is None:
            return 0.0
        if self._retired:
            return _INACTIVE_DELAY
        return _BUSIER_DELAY if own > fewest + _AHEAD else 0.0

    def accepted(self, own: int) -> None:
        """Publish that this worker has accepted a connection and has `own` now."""
        if self._loaded():
            self.slot.publish_connections(own)

    def has_surplus(self, own: int) -> bool:
        """Return True if another worker, such as one that was just started, should have one of these connections."""
        fewest = self.slot.fewest_elsewhere()
        return fewest is not None and own > fewest + _AHEAD + 1


class Acceptor:
    """Accepts connections one by one, with a short delay if another worker should have them.

    It has the methods of an `asyncio.Server` that uvicorn calls.

    Args:
        listener: the listening socket.
        share: of this worker.
        protocol: makes a connection's protocol.
        connections: of this worker.
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
        self._handshakes: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        share.slot.set_listening(True)
        # Publish our count before the first accept, so that busier workers start closing surplus connections.
        share.accept_delay(self._count())
        self._loop.add_reader(listener, self._on_waiting)

    def close(self) -> None:
        """Stop accepting connections; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._share.retire()
        self._share.slot.set_listening(False)
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Wait briefly for handshakes under way, and drop those that do not end in time."""
        if self._handshakes:
            _, late = await asyncio.wait(self._handshakes, timeout=_HANDSHAKE_TIMEOUT)
            for task in late:
                task.cancel()

    def _count(self) -> int:
        return len(self._connections) + len(self._handshakes)

    def _on_waiting(self) -> None:
        """Accept the waiting connection, or leave it to the other workers for a while."""
        if seconds := self._share.accept_delay(self._count()):
            self._wait(seconds)
        else:
            self._accept()

    def _wait(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener, self._on_waiting)
        # No other worker had time for it: accept it, unless this one loads its models or stops.
        if self._share.accept_delay(self._count()) < _INACTIVE_DELAY:
            self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            # Another worker was faster, or the client is gone.
            return
        except OSError as error:
            if error.errno == errno.EINVAL:
                # The last of the other workers has shut the socket down.
                self.close()
                return
            logger.error("can't accept a connection: %s", error)
            self._wait(_NO_FILES_DELAY)
            return
        task = self._loop.create_task(self._connect(connection))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
        self._share.accepted(self._count())

    async def _connect(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            if connection.family in (socket.AF_INET, socket.AF_INET6):
                # Some systems raise an error if the client is gone already.
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._ssl)
        except OSError as error:
            # The client is gone, or doesn't speak TLS.
            logger.debug("a connection failed before its first request: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise
