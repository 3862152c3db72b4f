"""Far more connections than are allowed: probes are answered, and the connections within the limit are kept."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import PLAIN, QUICK, Server, serve, wait_until

MOST = 10


@pytest.fixture(scope="module")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"HALFTONE_CONNECTIONS": str(MOST), "HALFTONE_HEADER_TIMEOUT": "60", **QUICK}
    with serve(artifacts, tmp_path_factory.mktemp("many") / "log", **settings) as running:
        yield running


@contextlib.contextmanager
def flooded(server: Server, count: int) -> Iterator[list[socket.socket]]:
    """Open connections that send nothing, the first ones within the limit."""
    address = ("127.0.0.1", httpx.URL(server.url).port)
    wait_until(lambda: server.get("/models").status_code == 200, "there was room")
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]


def test_probes_are_answered_and_other_requests_refused(server: Server) -> None:
    for count in (2 * MOST + 1, 20 * MOST):
        with flooded(server, count):
            for path in ("/livez", "/readyz", "/v2/health/live") * 5:
                assert server.get(path).status_code == 200
            refused = server.get("/models")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_connections")


def test_connections_within_the_limit_are_kept(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60, verify=PLAIN) as client:
        assert client.get("/models").status_code == 200
        with flooded(server, 20 * MOST) as connections:
            connections[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connections[-1].recv(12) == b"HTTP/1.1 200"
            assert client.get("/models").status_code == 200
