"""Closed-loop load generator on asyncio, in one process, for machines without wrk.

It is slower than wrk: a report states what it reaches against a server that does nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from loadtest.client.connection import ConnectionPool, loop_factory
from loadtest.client.load import Cell, Load, Tally, class_index

_TIMEOUT_SECONDS = 30.0
_RETRY_SECONDS = 0.05


def run(load: Load) -> Cell:
    """Put the load on the server and count."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(load))


async def _run(load: Load) -> Cell:
    tally, pool = Tally(), ConnectionPool("127.0.0.1", load.port)
    end = time.perf_counter() + load.seconds
    async with asyncio.TaskGroup() as group:
        for client in range(load.clients):
            group.create_task(_client(load, pool, client, end, tally))
    pool.close()
    return tally.cell(load.clients, load.seconds)


async def _client(load: Load, pool: ConnectionPool, first: int, end: float, tally: Tally) -> None:
    for turn in itertools.count(first):
        start = time.perf_counter()
        if start >= end:
            return
        position = turn % len(load.requests)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                response = await pool.request(load.requests[position])
        except OSError:
            # Also TimeoutError. The pause keeps a server that refuses at once from being flooded with attempts.
            tally.errors += 1
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        now = time.perf_counter()
        # A request in flight at the end counts in no rate.
        if now <= end:
            tally.count(response.status, class_index(load.answer, response.body), now - start, position, load)
