"""Graceful shutdown of a worker: fail readiness, keep serving for the lame-duck period, close the socket, drain.

uvicorn alone closes its socket and every connection on which no request is being processed when the signal arrives.
Requests that lie unread in those connections, or in connections that are not yet accepted, are reset.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from serving.http.connections import GuardedConnection
from serving.process.acceptor import Acceptor, ConnectionShare
from serving.process.bentoml_compat import guarded_protocol, use_server
from serving.process.listener import drain_and_close, readable
from serving.process.open_files import allow_open_files
from serving.process.signals import SERVICE_STOP

_STEP = 0.02
_IDLE_TIMEOUT = 0.25
_SERVICE_STOP_TIMEOUT = 2.0


class Server(uvicorn.Server):
    """uvicorn's server with limits for connections and a shutdown that loses no request.

    Args:
        config: uvicorn's configuration, not loaded yet.
        connection: limits, from `serving.http.connections.with_limits`.
        retire: called in the signal handler; fails readiness.
        lame_duck: seconds to keep serving for clients and proxies that have not noticed yet; none after Ctrl-C.
        share: of the connections that several workers accept from the same socket; None if there is one worker.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        connection: type[GuardedConnection],
        retire: Callable[[], object],
        lame_duck: float,
        share: ConnectionShare | None = None,
    ) -> None:
        config.http = guarded_protocol(connection, share.has_surplus if share else None)
        super().__init__(config)
        self._share = share
        self._retire = retire
        self._lame_duck = lame_duck
        self._service_stops = False
        self._interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, and listen to one signal more than uvicorn.

        Raises:
            RuntimeError: uvicorn would serve connections without limits.
        """
        signal.signal(SERVICE_STOP, self.handle_exit)
        # Starts the thread that shows the metrics: later the system may allow no further one.
        await asyncio.to_thread(bool)
        if not issubclass(self.config.http_protocol_class, GuardedConnection):
            raise RuntimeError(f"connections are {self.config.http_protocol_class}, which have no limits")
        if self._share is None or sockets is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for listener in sockets:
            listener.listen(self.config.backlog)
            acceptor = Acceptor(
                listener, self._share, self._protocol, self.server_state.connections, ssl=self.config.ssl
            )
            self.servers.append(acceptor)  # type: ignore[arg-type]

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        connection: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal to stop."""
        self._retire()
        if self._share is not None:
            self._share.retire()
        if sig == SERVICE_STOP:
            self._service_stops = self.should_exit = True
            return
        self._interrupted |= sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Keep serving for the lame-duck period, close the socket, drain the connections, and stop."""
        listeners = sockets or []
        self._close_connections_after_responses()
        await self._wait(self._lame_duck, lambda: self._interrupted)
        # A signal to the whole process group reaches the worker before the supervisor can send its own.
        await self._wait(_SERVICE_STOP_TIMEOUT, lambda: self._service_stops)
        await self._close_listeners(listeners)
        await self._close_idle_connections()
        await super().shutdown(sockets)

    def _close_connections_after_responses(self) -> None:
        """Send `Connection: close` from now on: the next request of a client then goes to another worker or replica."""
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in self._connections():
            # It adds the header itself.
            connection.close_after_response()

    def _connections(self) -> list[GuardedConnection]:
        return [each for each in self.server_state.connections if isinstance(each, GuardedConnection)]

    async def _wait(self, seconds: float, until: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and not until() and not self.force_exit:
            await asyncio.sleep(_STEP)

    async def _close_listeners(self, listeners: Sequence[socket.socket]) -> None:
        if self._service_stops:
            await drain_and_close(listeners, self._stop_accepting, is_last=self._is_last)
        else:
            # The supervisor keeps the socket open: new connections wait in it for the next worker.
            self._stop_accepting()
        for server in self.servers:
            if isinstance(server, Acceptor):
                await server.wait_closed()

    def _is_last(self) -> bool:
        """Stop listening, and return True if no other worker listens."""
        if self._share is None:
            return True
        self._share.slot.set_listening(False)
        return self._share.slot.is_last()

    def _stop_accepting(self) -> None:
        for server in self.servers:
            server.close()

    async def _close_idle_connections(self) -> None:
        """Close the connections without a request; first read a request that lies unread in one of them."""
        await self._wait(_IDLE_TIMEOUT, lambda: not any(each.idle for each in self._connections()))
        # Closed connections stay in the server's list until the client has read the last response.
        closed: set[GuardedConnection] = set()
        pause = 0.0
        while idle := [each for each in self._connections() if each.idle and each not in closed]:
            if self.force_exit:
                return
            for connection in idle:
                if not _has_unread(connection):
                    closed.add(connection)
                    connection.finish()
            # The event loop reads from the others meanwhile.
            await asyncio.sleep(pause)
            pause = _STEP


def install(
    *,
    connection: type[GuardedConnection],
    retire: Callable[[], object] = bool,
    lame_duck: float = 0.0,
    share: ConnectionShare | None = None,
    others: int = 0,
) -> None:
    """Let BentoML's worker run this server, with as many connections as the process may have files.

    The arguments are those of `Server`, and `others` of `allow_open_files`. To be called before the worker makes its
    server.
    """
    connection.most = allow_open_files(connection.most, others)
    use_server(partial(Server, connection=connection, retire=retire, lame_duck=lame_duck, share=share))


def _has_unread(connection: GuardedConnection) -> bool:
    if connection.transport.is_closing():
        return False
    return readable(connection.transport.get_extra_info("socket").fileno())
