"""Asynchronous clients on many connections at once, for overload: open and closed loops, slow and leaving clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from loadtest.client.connection import ConnectionPool


@dataclass(frozen=True)
class Reply:
    """One response, with its time."""

    status: int
    """HTTP status; 0: the connection broke."""

    seconds: float
    """From the first try to send to the end of the response."""

    headers: Mapping[str, str]
    """By name in lower case."""

    ended: float
    """End of the response, on the monotonic clock."""


class Clients:
    """Clients of one server that share as many kept connections as they need.

    Args:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._pool = ConnectionPool("127.0.0.1", port)

    async def request(self, data: bytes) -> Reply:
        """Send a whole request and wait for its response."""
        start = time.monotonic()
        try:
            response = await self._pool.request(data)
        except OSError:
            now = time.monotonic()
            return Reply(0, now - start, {}, now)
        now = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers.items()}
        return Reply(response.status, now - start, headers, now)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection for a client that doesn't behave."""
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def closed_loop(self, data: bytes, clients: int, seconds: float) -> list[Reply]:
        """Return the replies to clients that each send the next request when the last one is answered."""
        end = time.monotonic() + seconds

        async def client() -> list[Reply]:
            replies = []
            while time.monotonic() < end:
                replies.append(await self.request(data))
            return replies

        return [reply for replies in await asyncio.gather(*(client() for _ in range(clients))) for reply in replies]

    async def open_loop(self, data: bytes, rate: float, seconds: float) -> list[Reply]:
        """Return the replies to requests at a fixed rate (a second), sent whether or not earlier ones are answered."""
        start = time.monotonic()
        tasks = []
        for index in range(round(rate * seconds)):
            # A request that is late is sent at once: the rate holds over the whole time.
            await asyncio.sleep(max(0.0, start + index / rate - time.monotonic()))
            tasks.append(asyncio.ensure_future(self.request(data)))
        return await asyncio.gather(*tasks)

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()
