"""An asynchronous HTTP/1.1 client that holds many connections cheaply: for floods, slow senders and early leavers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    """HTTP status; 0: the connection broke."""

    seconds: float
    """From the first try to send to the end of the answer."""

    headers: Mapping[str, str]
    """By name in lower case."""

    ended: float
    """When, on the monotonic clock."""


def request(path: str, body: bytes, media_type: str = "image/jpeg") -> bytes:
    """A whole POST request."""
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {media_type}", f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


class Clients:
    """Sends requests over as many kept connections as are needed.

    Args:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, data: bytes) -> Reply:
        """Send one request and wait for its answer."""
        start = time.monotonic()
        try:
            connection = self._kept() or await self.connect()
            reader, writer = connection
            writer.write(data)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError):
            return Reply(0, time.monotonic() - start, {}, time.monotonic())
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append(connection)
        now = time.monotonic()
        return Reply(int(head[0].split()[1]), now - start, headers, now)

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that the server has not closed meanwhile."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def closed_loop(self, data: bytes, clients: int, seconds: float) -> list[Reply]:
        """The replies to so many clients that each ask again as soon as they are answered."""
        end = time.monotonic() + seconds

        async def one() -> list[Reply]:
            replies = []
            while time.monotonic() < end:
                replies.append(await self.ask(data))
            return replies

        return [reply for replies in await asyncio.gather(*(one() for _ in range(clients))) for reply in replies]

    async def open_loop(self, data: bytes, rate: float, seconds: float) -> list[Reply]:
        """The replies to requests at a fixed rate (a second), whether or not the last ones are answered."""
        start = time.monotonic()
        tasks = []
        for index in range(round(rate * seconds)):
            # Later than planned, it is sent at once: the rate is kept over the whole time.
            await asyncio.sleep(max(0.0, start + index / rate - time.monotonic()))
            tasks.append(asyncio.ensure_future(self.ask(data)))
        return await asyncio.gather(*tasks)

    def close(self) -> None:
        """Give up the kept connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
