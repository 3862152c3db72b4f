"""Our own load generator: a closed loop over raw sockets in one process, for machines without wrk.

It is the slower of the two: a report states what it reaches against a server that does nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import cast

from loadtest.client.http1 import MalformedResponseError, Response, Responses
from loadtest.client.load import Cell, Load, Tally, class_index

_PATIENCE = 30.0
_RETRY_SECONDS = 0.05


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._responses = Responses()
        self._waiter: asyncio.Future[Response] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast: uvloop's transports don't derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> Response:
        """Send, and wait for the response.

        Raises:
            ConnectionError: the server closed the connection or answered in another protocol.
        """
        if self.closed:
            raise ConnectionResetError
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        response = await self._waiter
        if not response.keep_alive:
            self.close()
        return response

    def data_received(self, data: bytes) -> None:
        """Hand a complete response over."""
        try:
            for response in self._responses.feed(data):
                self._finish(response)
        except MalformedResponseError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the one who waits."""
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionResetError())

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self._transport.close()

    def _finish(self, response: Response) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(response)


async def _client(load: Load, first: int, end: float, tally: Tally) -> None:
    connection: Connection | None = None
    for turn in itertools.count(first):
        start = time.perf_counter()
        if start >= end:
            break
        position = turn % len(load.requests)
        try:
            if connection is None or connection.closed:
                _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", load.port)
            response = await asyncio.wait_for(connection.ask(load.requests[position]), _PATIENCE)
        except (OSError, TimeoutError):
            tally.errors += 1
            # A server that refuses at once would else turn the loop into a storm.
            await asyncio.sleep(_RETRY_SECONDS)
            if connection is not None:
                connection.close()
            continue
        now = time.perf_counter()
        # What is still under way when the time is up is in nobody's rate.
        if now <= end:
            tally.count(response.status, class_index(load.answer, response.body), now - start, position, load)
    if connection is not None:
        connection.close()


async def _run(load: Load) -> Cell:
    tally = Tally()
    end = time.perf_counter() + load.seconds
    async with asyncio.TaskGroup() as group:
        for client in range(load.clients):
            group.create_task(_client(load, client, end, tally))
    return tally.cell(load.clients, load.seconds)


def run(load: Load) -> Cell:
    """Put the load on the server and count."""
    if sys.platform == "win32":
        return asyncio.run(_run(load))
    import uvloop

    return uvloop.run(_run(load))
