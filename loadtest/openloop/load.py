"""The load generator: open and closed loops over keep-alive connections, on asyncio.

In the open loop every request goes off at its own time, however many are still unanswered, on a connection that is free
or on a new one. In the closed loop each client waits for its answer before it asks again: with one client that is the
latency of an idle server, but at no number of clients does it show what happens to users who don't wait for each other.
"""

# MERGED-DOC """When requests arrive: a Poisson process, as many independent users make it."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtest.client.connection import Connection
from loadtest.client.http1 import Response
from loadtest.openloop.samples import Run, Sample, Target

PATIENCE = 10.0

"""Seconds after which a request counts as failed."""

MAX_CONNECTIONS = 900

"""Below the usual limit of 1024 open files."""

_RETRY_SECONDS = 0.05


@dataclass
class _Session:
    """One run's connections and what came of its requests."""

    target: Target
    start: float
    free: list[Connection] = field(default_factory=list)
    open: int = 0
    unsent: int = 0
    samples: list[Sample] = field(default_factory=list)

    def now(self) -> float:
        return time.perf_counter() - self.start

    async def one(self, turn: int, intended: float) -> bool:
        """Send one request and note what came of it; whether there was an answer."""
        position = turn % len(self.target.requests)
        if not self.free and self.open >= MAX_CONNECTIONS:
            self.unsent += 1
            self.samples.append(Sample(intended, self.now(), self.now(), 0, False))
            return False
        sent = self.now()
        try:
            response = await asyncio.wait_for(self._ask(self.target.requests[position]), PATIENCE)
        except (OSError, TimeoutError):
            self.samples.append(Sample(intended, sent, self.now(), 0, False))
            return False
        done = self.now()
        right = response.status == 200 and self._right(position, response)
        self.samples.append(Sample(intended, sent, done, response.status, right))
        return True

    async def _ask(self, request: bytes) -> Response:
        connection = await self._connection()
        try:
            response = await connection.ask(request)
        except BaseException:
            # Whatever comes later on this connection belongs to a request that nobody waits for any more.
            self._drop(connection)
            raise
        if connection.closed:
            self._drop(connection)
        else:
            self.free.append(connection)
        return response

    async def _connection(self) -> Connection:
        while self.free:
            connection = self.free.pop()
            if not connection.closed:
                return connection
            self.open -= 1
        self.open += 1
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, self.target.host, self.target.port)
        except BaseException:
            self.open -= 1
            raise
        return connection

    def _drop(self, connection: Connection) -> None:
        self.open -= 1
        connection.close()

    def _right(self, position: int, response: Response) -> bool:
        expected = self.target.expected[position]
        found = re.findall(self.target.answer.encode(), response.body)
        return len(found) == len(expected) and all(
            wanted in (-1, int(index)) for wanted, index in zip(expected, found, strict=True)
        )

    def close(self) -> None:
        for connection in self.free:
            connection.close()


async def open_loop(target: Target, times: Sequence[float]) -> Run:
    """Send a request at each of the times (seconds from now, ascending), and wait for all answers."""
    session, cpu = _Session(target, time.perf_counter()), time.process_time()
    async with asyncio.TaskGroup() as group:
        for turn, intended in enumerate(times):
            # Also with nothing to wait for: the tasks that were made get their turn.
            await asyncio.sleep(max(0.0, intended - session.now()))
            group.create_task(session.one(turn, intended))
    return _finished(session, cpu)


async def closed_loop(target: Target, clients: int, seconds: float) -> Run:
    """Let each client ask again and again, and wait for what is under way when the time is up."""
    session, cpu = _Session(target, time.perf_counter()), time.process_time()

    async def client(first: int) -> None:
        for turn in itertools.count(first):
            if session.now() >= seconds:
                return
            if not await session.one(turn, session.now()):
                # A server that refuses at once would else turn the loop into a storm.
                await asyncio.sleep(_RETRY_SECONDS)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return _finished(session, cpu)


def _finished(session: _Session, cpu: float) -> Run:
    session.close()
    return Run(
        samples=sorted(session.samples, key=lambda sample: sample.intended),
        cpu_share=(time.process_time() - cpu) / max(session.now(), 1e-9),
        unsent=session.unsent,
    )


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of the arrivals, in seconds from the start, ascending and below `seconds`; the same for the same seed.

    The gaps are exponentially distributed with the mean 1 / `rate`, independent of each other.

    Args:
        rate: arrivals a second on average, positive.
        seconds: length of the schedule.
        seed: of the random numbers.
    """
    numbers = random.Random(seed)
    times: list[float] = []
    now = numbers.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += numbers.expovariate(rate)
    return times
