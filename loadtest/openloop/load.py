"""Open-loop and closed-loop load over keep-alive connections, on asyncio.

In the open loop every request is sent at its own time, however many are still unanswered, over a free connection or a
new one. In the closed loop each client waits for its response before it sends the next request: with one client that is
the latency of an idle server, but no number of clients shows the latency of users who don't wait for each other.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import Sequence

from loadtest.client.connection import ConnectionPool
from loadtest.client.http1 import Response
from loadtest.openloop.samples import Run, Sample, Target

TIMEOUT_SECONDS = 10.0
"""After this time a request counts as failed."""

MAX_CONNECTIONS = 900
"""Below the usual limit of 1024 open files."""

_RETRY_SECONDS = 0.05


async def open_loop(target: Target, times: Sequence[float]) -> Run:
    """Send a request at each of the times (seconds from now, ascending), and wait for all responses."""
    session = _Session(target)
    async with asyncio.TaskGroup() as group:
        for turn, intended in enumerate(times):
            # Sleep even for 0 s, so that the tasks made so far get their turn.
            await asyncio.sleep(max(0.0, intended - session.now()))
            group.create_task(session.send(turn, intended))
    return session.finish()


async def closed_loop(target: Target, clients: int, seconds: float, think: float = 0.0) -> Run:
    """Let each client send one request after the other, and wait for those in flight at the end.

    Args:
        target: the server.
        clients: number of clients.
        seconds: length of the run.
        think: mean of the random seconds from a response to the client's next request.
    """
    session, numbers = _Session(target), random.Random(0)

    async def client(first: int) -> None:
        for turn in itertools.count(first):
            if session.now() >= seconds:
                return
            if not await session.send(turn, session.now()):
                # Keeps a server that refuses at once from being flooded with attempts.
                await asyncio.sleep(_RETRY_SECONDS)
            if think:
                await asyncio.sleep(numbers.expovariate(1 / think))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return session.finish()


class _Session:
    """The connections and samples of one run."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pool = ConnectionPool(target.host, target.port, limit=MAX_CONNECTIONS)
        self._samples: list[Sample] = []
        self._unsent = 0
        self._cpu, self._start = time.process_time(), time.perf_counter()

    def now(self) -> float:
        """Return the seconds since the start of the run."""
        return time.perf_counter() - self._start

    async def send(self, turn: int, intended: float) -> bool:
        """Send one request and record a sample; return True if there was a response."""
        position = turn % len(self._target.requests)
        sent = self.now()
        if self._pool.exhausted:
            self._unsent += 1
            self._samples.append(Sample(intended, sent, sent, 0, False))
            return False
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await self._pool.request(self._target.requests[position])
        except OSError:
            # Also TimeoutError.
            self._samples.append(Sample(intended, sent, self.now(), 0, False))
            return False
        done = self.now()
        right = response.status == 200 and self._right(position, response)
        self._samples.append(Sample(intended, sent, done, response.status, right))
        return True

    def _right(self, position: int, response: Response) -> bool:
        expected = self._target.expected[position]
        found = re.findall(self._target.answer.encode(), response.body)
        return len(found) == len(expected) and all(
            wanted in (-1, int(index)) for wanted, index in zip(expected, found, strict=True)
        )

    def finish(self) -> Run:
        """Close the connections and return the samples."""
        self._pool.close()
        return Run(
            samples=sorted(self._samples, key=lambda sample: sample.intended),
            cpu_share=(time.process_time() - self._cpu) / max(self.now(), 1e-9),
            unsent=self._unsent,
        )


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Return arrival times of a Poisson process, as many independent users make it; the same for the same seed.

    The gaps are independent and exponentially distributed with the mean 1 / `rate`.

    Args:
        rate: mean arrivals a second, positive.
        seconds: length of the schedule.
        seed: of the random numbers.

    Returns:
        Seconds from the start, ascending and below `seconds`.
    """
    numbers = random.Random(seed)
    times: list[float] = []
    now = numbers.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += numbers.expovariate(rate)
    return times
