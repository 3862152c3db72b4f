"""Kept connections, asynchronous and blocking, against servers that keep, close and break them."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import BinaryIO

import pytest

from loadtest.client.blocking import SyncClient, fetch, status_of
from loadtest.client.closed_loop import run
from loadtest.client.connection import ConnectionPool
from loadtest.client.flood import Clients
from loadtest.client.http1 import MalformedResponseError, Response, encode_request, get, post
from loadtest.client.load import Load
from loadtest.client.threaded import ThreadedClients, attempt
from loadtest.servers.peer import INDEX
from loadtest.servers.process import free_port

KEPT = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"index":7}'
CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"ind\r\n6\r\nex":7}\r\n0\r\n\r\n'
CLOSING = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\n{"index":7}'
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nearly close"
NO_HTTP = b"220 mail.example.org ESMTP\r\n"


@dataclass
class Scripted:
    """A server that gives each request the next of its replies, byte by byte if `slow`."""

    port: int
    replies: Iterator[bytes]
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def scripted(*replies: bytes, forever: bytes = KEPT) -> Iterator[Scripted]:
    """A server that closes the connection after a reply which it does not keep alive."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Scripted(port=listener.getsockname()[1], replies=iter([*replies, *[forever] * 100_000]))
        threading.Thread(target=_accept, args=(listener, server), daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server: Scripted) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            server.connections += 1
            threading.Thread(target=_serve, args=(connection, server), daemon=True).start()


def _serve(connection: socket.socket, server: Scripted) -> None:
    with connection, contextlib.suppress(OSError), connection.makefile("rb") as file:
        while head := _read_head(file):
            length = next((int(line.split(b":")[1]) for line in head if line.startswith(b"Content-Length")), 0)
            server.requests.append(head[0] + file.read(length))
            reply = next(server.replies)
            connection.sendall(reply)
            if reply in (CLOSING, CUT, NO_HTTP):
                return


def _read_head(file: BinaryIO) -> list[bytes]:
    """Return the lines before the empty one, none at the end of the stream: `readline` is empty for ever there."""
    return list(takewhile(lambda line: line not in (b"\r\n", b""), iter(file.readline, b"")))


def asynchronous(server: Scripted, requests: Sequence[bytes]) -> list[Response | OSError]:
    async def send() -> list[Response | OSError]:
        pool = ConnectionPool("127.0.0.1", server.port)
        results: list[Response | OSError] = []
        for request in requests:
            try:
                results.append(await pool.request(request))
            except OSError as error:
                results.append(error)
        pool.close()
        return results

    return asyncio.run(send())


def blocking(server: Scripted, requests: Sequence[bytes]) -> list[Response | OSError]:
    results: list[Response | OSError] = []
    with contextlib.closing(SyncClient(server.port)) as client:
        for request in requests:
            try:
                results.append(client.request(request))
            except OSError as error:
                results.append(error)
    return results


Client = Callable[[Scripted, Sequence[bytes]], list[Response | OSError]]
CLIENTS = pytest.mark.parametrize("client", [asynchronous, blocking])


@CLIENTS
def test_a_connection_is_used_until_the_server_closes_it(client: Client) -> None:
    with scripted(KEPT, CHUNKED, EMPTY, CLOSING, KEPT) as server:
        results = client(server, [post("/", b"%d" % number) for number in range(5)])

    bodies = [result.body for result in results if isinstance(result, Response)]
    assert bodies == [b'{"index":7}', b'{"index":7}', b"", b'{"index":7}', b'{"index":7}']
    assert server.connections == 2
    assert server.requests == [b"POST / HTTP/1.1\r\n%d" % number for number in range(5)]


@CLIENTS
@pytest.mark.parametrize(("reply", "error"), [(CUT, ConnectionResetError), (NO_HTTP, MalformedResponseError)])
def test_a_response_without_its_end_is_an_error_and_the_next_request_gets_a_new_connection(
    client: Client, reply: bytes, error: type[OSError]
) -> None:
    with scripted(KEPT, reply, KEPT) as server:
        first, second, third = client(server, [get("/")] * 3)

    assert isinstance(first, Response)
    assert isinstance(second, error)
    assert isinstance(third, Response)
    assert server.connections == 2


@CLIENTS
def test_nobody_listens(client: Client) -> None:
    (result,) = client(Scripted(port=free_port(), replies=iter([])), [get("/")])

    assert isinstance(result, ConnectionRefusedError)


def test_a_request_that_is_given_up_takes_its_connection_with_it() -> None:
    async def send(port: int) -> Response:
        pool = ConnectionPool("127.0.0.1", port, limit=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await pool.request(get("/"))
        assert not pool.exhausted
        response = await pool.request(get("/"))
        pool.close()
        return response

    with scripted(b"HTTP/1.1 200 OK\r\n", forever=CHUNKED) as server:
        response = asyncio.run(send(server.port))

    assert (response.body, server.connections) == (b'{"index":7}', 2)


def test_a_pool_is_exhausted_while_all_its_connections_are_in_use() -> None:
    async def send(port: int) -> list[bool]:
        pool = ConnectionPool("127.0.0.1", port, limit=2)
        tasks = [asyncio.ensure_future(pool.request(get("/"))) for _ in range(2)]
        await asyncio.sleep(0.1)
        seen = [pool.exhausted]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [*seen, pool.exhausted]

    with scripted(forever=b"HTTP/1.1 200 OK\r\n") as server:
        assert asyncio.run(send(server.port)) == [True, False]


def test_a_single_request_has_a_status_and_a_head_no_body() -> None:
    with scripted(KEPT, b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n", EMPTY) as server:
        assert fetch(server.port, get("/")).body == b'{"index":7}'
        assert fetch(server.port, encode_request("HEAD", "/", host="x", headers={})).body == b""
        assert status_of(server.port, "/readyz") == 204
    assert status_of(free_port(), "/readyz") == 0


def test_lost_requests_are_told_from_those_that_were_never_accepted() -> None:
    with scripted(KEPT, CUT, CLOSING) as server, contextlib.closing(SyncClient(server.port)) as client:
        assert [attempt(client, get("/")) for _ in range(3)] == [("answered", 200), ("lost", 0), ("answered", 200)]
    with contextlib.closing(SyncClient(free_port())) as client:
        assert attempt(client, get("/")) == ("refused", 0)


def test_a_request_that_could_not_be_sent_whole_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = SyncClient(listener.getsockname()[1])
        client.connection()
        listener.accept()[0].close()

        # More than the buffers of both ends take.
        assert attempt(client, post("/", bytes(50 * 2**20))) == ("cut", 0)


def test_clients_in_threads_count_every_request_once() -> None:
    with scripted(CUT, EMPTY) as server:
        clients = ThreadedClients(server.port, [post("/", b"x"), get("/")], 3)
        clients.start()
        while clients.count("answered") < 20:
            time.sleep(0.01)
        clients.stop()

    assert clients.count("lost") == 1
    assert clients.statuses() == {200: clients.count("answered") - 1, 204: 1}
    assert sum(clients.counts.values()) == len(server.requests)


def test_a_closed_loop_counts_statuses_and_classes() -> None:
    with scripted(EMPTY, CUT, CLOSING, forever=CHUNKED) as server:
        load = Load(port=server.port, requests=[post("/", b"x")], expected=[7], answer=INDEX, clients=2, seconds=2.0)
        cell = run(load)

    assert cell.requests > 2
    assert (cell.errors, cell.wrong) == (2, 0)


def test_replies_have_headers_and_times() -> None:
    async def send(port: int) -> None:
        clients = Clients(port)
        (first,) = await clients.open_loop(get("/"), 100, 0.01)
        second = await clients.request(get("/"))
        third = await clients.request(get("/"))
        clients.close()
        assert (first.status, first.headers) == (503, {"retry-after": "2", "content-length": "0"})
        assert 0 < first.seconds < 5
        assert (second.status, second.headers, third.status) == (0, {}, 200)

    with scripted(b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n", CUT) as server:
        asyncio.run(send(server.port))
