"""Workers that accept connections from one socket: the load is balanced, and no worker waits for another."""

import asyncio
import errno
import os
import socket
import ssl
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.process import worker_table
from serving.process.acceptor import Acceptor, ConnectionShare


class Counting(asyncio.Protocol):
    """Keeps its connection until the client closes it."""

    def __init__(self, connections: set[asyncio.Protocol]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"x")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)


class SharedSocket:
    """A listening socket with acceptors that share it, all on one event loop."""

    def __init__(self, number: int, loading: frozenset[int] | set[int] = frozenset()) -> None:
        descriptor = worker_table.create(5)
        self.table = worker_table.WorkerTable(descriptor)
        os.close(descriptor)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.connections: list[set[asyncio.Protocol]] = [set() for _ in range(number)]
        # The others duplicate it: an event loop watches a descriptor once.
        self.listeners = [self.listener, *(self.listener.dup() for _ in range(number - 1))]
        self.acceptors = [
            Acceptor(
                listener,
                ConnectionShare(self.slot(worker), loaded=lambda worker=worker: worker not in loading),  # type: ignore[misc]
                lambda own=own: Counting(own),  # type: ignore[misc]
                own,
                ssl=None,
            )
            for worker, (listener, own) in enumerate(zip(self.listeners, self.connections, strict=True), start=1)
        ]

    def slot(self, number: int) -> worker_table.WorkerSlot:
        slot = self.table.slot(number)
        slot.mark_ready()
        return slot

    async def connect(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(*self.listener.getsockname())
        assert await reader.readexactly(1) == b"x"
        return writer

    @property
    def counts(self) -> list[int]:
        return [len(own) for own in self.connections]

    async def close(self, writers: list[asyncio.StreamWriter]) -> None:
        for writer in writers:
            writer.close()
        for acceptor, listener in zip(self.acceptors, self.listeners, strict=True):
            acceptor.close()
            await acceptor.wait_closed()
            listener.close()
        await asyncio.sleep(0.01)


@given(workers=st.integers(1, 4), bursts=st.lists(st.integers(1, 12), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_connections_are_spread_evenly(workers: int, bursts: list[int]) -> None:
    async def scenario() -> list[int]:
        shared = SharedSocket(workers)
        writers: list[asyncio.StreamWriter] = []
        for burst in bursts:
            writers += await asyncio.gather(*(shared.connect() for _ in range(burst)))
        counts = shared.counts
        await shared.close(writers)
        return counts

    counts = asyncio.run(scenario())

    assert sum(counts) == sum(bursts)
    assert max(counts) - min(counts) <= 3


def test_a_worker_that_hangs_is_not_waited_for() -> None:
    async def scenario() -> list[int]:
        shared = SharedSocket(2)
        # It has the fewest connections, and accepts none.
        shared.table.slot(9).publish_connections(0)
        writers = [await asyncio.wait_for(shared.connect(), 5) for _ in range(10)]
        counts = shared.counts
        await shared.close(writers)
        return counts

    assert sum(asyncio.run(scenario())) == 10


def test_a_worker_that_left_takes_none() -> None:
    async def scenario() -> list[int]:
        shared = SharedSocket(2)
        shared.acceptors[0].close()
        shared.acceptors[0].close()
        writers = [await shared.connect() for _ in range(6)]
        counts = shared.counts
        await shared.close(writers)
        return counts

    assert asyncio.run(scenario()) == [0, 6]


def test_a_worker_without_its_models_leaves_connections_to_those_that_have_theirs() -> None:
    async def scenario() -> list[list[int]]:
        loading = {1}
        alone = SharedSocket(1, loading)
        first = await alone.connect()
        counts = [alone.counts]
        await alone.close([first])

        shared = SharedSocket(2, loading)
        writers = [await shared.connect() for _ in range(5)]
        counts.append(shared.counts)
        loading.clear()
        await asyncio.sleep(0.2)
        writers += [await shared.connect() for _ in range(5)]
        counts.append(shared.counts)
        await shared.close(writers)
        return counts

    alone, together, loaded = asyncio.run(scenario())

    # Alone it accepts connections, if only to respond that it isn't ready.
    assert (alone, together) == ([1], [0, 5])
    assert loaded[0] >= 4


def test_a_connection_without_a_handshake_delays_no_shutdown() -> None:
    async def scenario() -> float:
        listener = socket.create_server(("127.0.0.1", 0))
        connections: set[asyncio.Protocol] = set()
        share = ConnectionShare(worker_table.WorkerTable(worker_table.create(2)).slot(1))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        acceptor = Acceptor(listener, share, lambda: Counting(connections), connections, ssl=context)
        with socket.create_connection(listener.getsockname()):
            await asyncio.sleep(0.2)
            start = time.monotonic()
            acceptor.close()
            await acceptor.wait_closed()
            await asyncio.sleep(0.05)
        listener.close()
        return time.monotonic() - start

    assert asyncio.run(scenario()) < 10


class Exhausted(socket.socket):
    """A listening socket of a process that reaches its limit of open files once."""

    failures = 1

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_a_lack_of_files_passes(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> float:
        listener = Exhausted()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        connections: set[asyncio.Protocol] = set()
        share = ConnectionShare(worker_table.WorkerTable(worker_table.create(2)).slot(1))
        acceptor = Acceptor(listener, share, lambda: Counting(connections), connections, ssl=None)
        start = time.monotonic()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.readexactly(1) == b"x"
        taken = time.monotonic() - start
        writer.close()
        acceptor.close()
        listener.close()
        await asyncio.sleep(0.01)
        return taken

    assert asyncio.run(scenario()) > 0.5
    assert "Too many open files" in caplog.text
