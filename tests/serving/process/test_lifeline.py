"""Workers whose supervisor is gone stop by themselves, and nothing of the service is left."""

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from loadtest.client.http1 import post
from tests.servers import PHOTOS, QUICK, START_SECONDS, Server, alive, family_of, serve, wait_until
from tests.serving.process.starts import starting

CAT = (PHOTOS / "cat.jpg").read_bytes()


def is_free(server: Server) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", httpx.URL(server.url).port))
        return True


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGKILL, "1"), (signal.SIGKILL, "2"), (signal.SIGUSR2, "1"), (signal.SIGALRM, "1")]
)
def test_nothing_outlives_the_supervisor_and_accepted_requests_are_finished(
    artifacts: Path, tmp_path: Path, number: signal.Signals, workers: str
) -> None:
    settings = {"HALFTONE_WORKERS": workers, "HALFTONE_DECODERS": "1", "HALFTONE_THREADS": "1", **QUICK}
    with serve(artifacts, tmp_path / "log", TMPDIR=str(tmp_path), **settings) as server:
        everything = family_of(server.process.pid)
        request = post("/classify", CAT, keep_alive=True)
        with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as slow:
            slow.sendall(request[:-1])
            wait_until(lambda: server.get("/readyz").status_code == 200, "the head was read")
            server.process.send_signal(number)
            server.process.wait()
            wait_until(lambda: "this worker stops" in server.log.read_text(), "the worker noticed")
            slow.sendall(request[-1:])
            assert slow.recv(12) == b"HTTP/1.1 200"

        assert alive(everything, seconds=START_SECONDS) == []
        assert is_free(server)
        assert not list(tmp_path.glob("halftone-*"))
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_still_loads_ends_too(artifacts: Path, workers: int) -> None:
    with starting(artifacts, workers, HALFTONE_WORKERS=str(workers)) as (process, started):
        os.kill(process.pid, signal.SIGKILL)

        assert alive(started, seconds=START_SECONDS) == []
