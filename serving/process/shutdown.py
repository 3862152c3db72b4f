"""How a worker stops: not ready at once, answering for a while longer, then the door is shut and the rest is answered.

uvicorn alone closes its socket and every connection on which no request is being answered at the moment of the signal;
requests that lie unread in those connections, or in connections that nobody has taken yet, get a reset for an answer.
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

from serving.http.connections import GuardedProtocol
from serving.process.acceptor import Acceptor, ConnectionShare
from serving.process.listener import readable, shut
from serving.process.signals import ALL_STOP

_STEP = 0.02
_SILENCE = 0.25
_TELLING = 2.0


class Server(uvicorn.Server):
    """uvicorn's server with a stop that loses no request.

    Args:
        config: uvicorn's.
        retire: called at the signal, in its handler.
        lame_duck: seconds to go on as if nothing had happened, for those who have not noticed yet; none after Ctrl-C.
        share: of the connections that several workers take from the same socket; None where there is one worker.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        retire: Callable[[], object],
        lame_duck: float,
        share: ConnectionShare | None = None,
    ) -> None:
        super().__init__(config)
        self._share = share
        self._retire = retire
        self._lame_duck = lame_duck
        self._all_stop = False
        self._hurry = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and to listen to one signal more.

        Raises:
            RuntimeError: uvicorn would serve connections that are not guarded.
        """
        signal.signal(ALL_STOP, self.handle_exit)
        if not issubclass(self.config.http_protocol_class, GuardedProtocol):
            raise RuntimeError(f"connections are {self.config.http_protocol_class}, which have no limits")
        if self._share is None or sockets is None:
            await super().startup(sockets)
            return
        GuardedProtocol.too_many = self._share.too_many
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
        """A signal to stop has come."""
        self._retire()
        if self._share is not None:
            self._share.retire()
        if sig == ALL_STOP:
            self._all_stop = self.should_exit = True
            return
        self._hurry |= sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Go on for a while, shut the door, answer what is left, and end."""
        listeners = sockets or []
        self._end_connections_after_their_answers()
        await self._wait(self._lame_duck, lambda: self._hurry)
        # Whoever sends the signal to a whole group of processes lets the supervisor speak second.
        await self._wait(_TELLING, lambda: self._all_stop)
        await self._leave(listeners)
        await self._let_silent_connections_go()
        await super().shutdown(sockets)

    def _end_connections_after_their_answers(self) -> None:
        """Say `Connection: close` from now on: a client's next request goes to a new connection, and elsewhere."""
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for connection in self.server_state.connections:
            if _answering(connection):
                # It writes the header itself.
                connection.cycle.keep_alive = False  # type: ignore[union-attr]

    async def _wait(self, seconds: float, over: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and not over() and not self.force_exit:
            await asyncio.sleep(_STEP)

    async def _leave(self, listeners: Sequence[socket.socket]) -> None:
        if self._all_stop:
            await shut(listeners, self._close, is_last=self._is_last)
        else:
            # The socket stays open in the supervisor: what comes now waits in it for the next worker.
            self._close()
        for server in self.servers:
            if isinstance(server, Acceptor):
                await server.wait_closed()

    def _is_last(self) -> bool:
        """Whether no other worker takes connections any more, nor this one."""
        if self._share is None:
            return True
        self._share.member.listens(False)
        return self._share.member.is_last()

    def _close(self) -> None:
        for server in self.servers:
            server.close()

    async def _let_silent_connections_go(self) -> None:
        """Close the connections on which nothing is asked; a request that lies in one of them is taken first."""
        await self._wait(_SILENCE, lambda: not any(map(_silent, self.server_state.connections)))
        # They stay in the server's list: it waits until their last answers have been read.
        told: set[Any] = set()
        pause = 0.0
        while silent := [each for each in self.server_state.connections if _silent(each) and each not in told]:
            if self.force_exit:
                return
            for connection in silent:
                if not _unread(connection):
                    told.add(connection)
                    connection.finish()  # type: ignore[union-attr]
            # Now the loop reads what lies in the others.
            await asyncio.sleep(pause)
            pause = _STEP


def install(*, retire: Callable[[], object], lame_duck: float, share: ConnectionShare | None) -> None:
    """Let BentoML's worker run this server; to be called before it makes uvicorn's."""
    uvicorn.Server = partial(Server, retire=retire, lame_duck=lame_duck, share=share)  # type: ignore[misc, assignment]


def _silent(connection: Any) -> bool:
    """Whether no request is being read or answered on a connection."""
    return not _answering(connection) and not connection.reading_head


def _answering(connection: Any) -> bool:
    return connection.cycle is not None and not connection.cycle.response_complete


def _unread(connection: Any) -> bool:
    if connection.transport.is_closing():
        return False
    return readable(connection.transport.get_extra_info("socket").fileno())
