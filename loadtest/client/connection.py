"""Asynchronous HTTP/1.1 connections that are kept open, for load generators in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from loadtest.client.http1 import MalformedResponseError, Response, Responses


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self) -> None:
        self._responses = Responses()
        self._waiter: asyncio.Future[Response] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast: uvloop's transports don't derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    async def request(self, data: bytes) -> Response:
        """Send a whole request and wait for the response.

        Raises:
            ConnectionError: the server closed the connection, or sent something else than an HTTP response.
        """
        if self.closed:
            raise ConnectionResetError
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        response = await self._waiter
        if not response.keep_alive:
            self.close()
        return response

    def data_received(self, data: bytes) -> None:
        """Hand a complete response to the waiting request."""
        try:
            for response in self._responses.feed(data):
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_result(response)
        except MalformedResponseError as error:
            self._fail(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the waiting request."""
        self.closed = True
        self._fail(ConnectionResetError("the server closed the connection"))

    def close(self) -> None:
        """Close the connection."""
        self.closed = True
        self._transport.close()

    def _fail(self, error: ConnectionError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class ConnectionPool:
    """Kept connections to one server; a request takes a free one or opens another.

    Args:
        host: name or address of the server.
        port: of the server.
        limit: most open connections; callers check `exhausted`. None: no limit.
    """

    def __init__(self, host: str, port: int, *, limit: int | None = None) -> None:
        self._host, self._port, self._limit = host, port, limit
        self._free: list[Connection] = []
        self._open = 0

    @property
    def exhausted(self) -> bool:
        """True if no connection is free and the limit allows no other one."""
        return not self._free and self._limit is not None and self._open >= self._limit

    async def request(self, data: bytes) -> Response:
        """Send a whole request over one of the connections and wait for the response.

        Raises:
            OSError: the server could not be reached, closed the connection, or sent something else than HTTP.
        """
        connection = await self._take()
        try:
            response = await connection.request(data)
        except BaseException:
            # Also if the caller gave up: whatever still arrives on this connection belongs to the abandoned request.
            self._open -= 1
            connection.close()
            raise
        if connection.closed:
            self._open -= 1
        else:
            self._free.append(connection)
        return response

    async def _take(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
            self._open -= 1
        self._open += 1
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, self._host, self._port)
        except BaseException:
            self._open -= 1
            raise
        return connection

    def close(self) -> None:
        """Close the free connections."""
        self._open -= len(self._free)
        for connection in self._free:
            connection.close()
        self._free.clear()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of the fastest event loop that is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
