"""Send each kind of bomb to a server, and watch what it costs: seconds, memory, and what another client sees."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.client.blocking import SyncClient
from loadtest.client.http1 import encode_request, get
from loadtest.malformed.bombs import JSON, PICTURES, Limits
from loadtest.servers.halftone import Server

_TIMEOUT = 120
_WARM_UP = 20
_PIPELINED = get("/livez")


@dataclass
class Cost:
    """What one kind of bomb did."""

    kind: str
    status: int
    """HTTP status of its response; 0: the connection was closed."""

    seconds: float
    """From sending the request to its response."""

    mib: float
    """Growth of the worker's memory at its peak."""

    others: list[float] = field(default_factory=list)
    """Seconds that each request of another client took meanwhile."""

    failed: int = 0
    """Requests of the other client that got no 200."""

    @property
    def worst(self) -> float:
        """Seconds of the other client's slowest request."""
        return max(self.others, default=0.0)


def attack(server: Server, picture: bytes, limits: Limits) -> list[Cost]:
    """Send one bomb of each kind.

    Args:
        server: it must have one worker, and Linux: its peak of memory is read from /proc.
        picture: what the other client asks for.
        limits: of the server.
    """
    for _ in range(_WARM_UP):
        _send(server.port, "/classify", picture)
    costs = [_watch(server, kind, picture, _sender("/classify", make, limits)) for kind, make in PICTURES.items()]
    for path in ("/v2/repository/index", f"/v2/models/{server.first_answer(picture)['model']}/infer"):
        costs += [
            _watch(server, f"{kind}, {path}", picture, _sender(path, make, limits)) for kind, make in JSON.items()
        ]
    costs.append(_watch(server, "pipelining, nothing read", picture, lambda: lambda port: pipeline(port, limits.size)))
    return costs


def usual_seconds(port: int, picture: bytes) -> float:
    """Return the median time of a request that has the server for itself."""
    return statistics.median(_send(port, "/classify", picture)[1] for _ in range(_WARM_UP))


def pipeline(port: int, size: int) -> int:
    """Send `size` bytes of requests on one connection and read nothing; return 0, as no response is read."""
    requests = memoryview(_PIPELINED * (2**20 // len(_PIPELINED)))
    with socket.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(OSError):
        connection.settimeout(5)
        for _ in range(size // len(requests)):
            connection.sendall(requests)
    return 0


def _sender(path: str, make: Callable[[Limits], bytes], limits: Limits) -> Callable[[], Callable[[int], int]]:
    def prepare() -> Callable[[int], int]:
        body = make(limits)
        return lambda port: _send(port, path, body)[0]

    return prepare


def _watch(server: Server, kind: str, picture: bytes, prepare: Callable[[], Callable[[int], int]]) -> Cost:
    send = prepare()
    process = Path("/proc") / str(server.worker().pid)
    (process / "clear_refs").write_text("5")
    before = _peak_mib(process)
    with _other_client(server.port, picture) as replies:
        begin = time.monotonic()
        status = send(server.port)
        seconds = time.monotonic() - begin
    others = [each for _, each in replies]
    failed = sum(code != 200 for code, _ in replies)
    return Cost(kind, status, seconds, _peak_mib(process) - before, others, failed)


@contextlib.contextmanager
def _other_client(port: int, picture: bytes) -> Iterator[list[tuple[int, float]]]:
    """Send a picture again and again from another thread; yield the list of its replies' statuses and seconds."""
    replies: list[tuple[int, float]] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            replies.append(_send(port, "/classify", picture))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield replies
    finally:
        stop.set()
        thread.join()


def _send(port: int, path: str, body: bytes) -> tuple[int, float]:
    """Return the status, 0 if the connection broke, and the seconds that a request took."""
    begin = time.monotonic()
    try:
        with contextlib.closing(SyncClient(port, timeout=_TIMEOUT)) as client:
            status = client.request(encode_request("POST", path, body, host="127.0.0.1", headers={})).status
    except OSError:
        status = 0
    return status, time.monotonic() - begin


def _peak_mib(process: Path) -> float:
    status = (process / "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
