"""Clients that ask one request after the other, and tell what was lost from what was never accepted.

A request is accepted once it was sent whole over a connection that the server took: it must be answered. Where the
connection is refused, or ends before the request is sent, another server may be asked, so nothing is lost.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Outcome = Literal["answered", "refused", "cut", "lost"]

_TIMEOUT = 30.0
_PAUSE = 0.01


def post(path: str, body: bytes, *, keep_alive: bool) -> bytes:
    """A whole HTTP/1.1 request; without `keep_alive` it asks for the connection's end."""
    connection = "keep-alive" if keep_alive else "close"
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Connection: {connection}", "Content-Type: application/octet-stream")
    return "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(body)}", "")).encode() + body


class SyncClient:
    """One client; its connection is used again for as long as the server keeps it.

    Args:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[Outcome, int]:
        """Send one request and read its answer. Returns what came of it, and the HTTP status or 0."""
        try:
            connection = self._connection or socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT)
        except OSError:
            return "refused", 0
        self._connection = None
        try:
            connection.sendall(request)
        except OSError:
            connection.close()
            return "cut", 0
        try:
            status, keep = _read(connection)
        except (OSError, ValueError):
            connection.close()
            return "lost", 0
        if keep:
            self._connection = connection
        else:
            connection.close()
        return "answered", status

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class ThreadedClients:
    """Clients that ask at once, each in a thread of its own, from `start` to `stop`.

    Args:
        port: of the server on 127.0.0.1.
        requests: asked in turn.
        clients: how many.
    """

    def __init__(self, port: int, requests: Sequence[bytes], clients: int) -> None:
        self.counts: Counter[tuple[Outcome, int]] = Counter()
        self._port = port
        self._requests = requests
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(index,), daemon=True) for index in range(clients)]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nothing new, and wait for what is being asked."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def count(self, outcome: Outcome) -> int:
        """How many requests ended in this way so far."""
        with self._lock:
            return sum(number for (kind, _), number in self.counts.items() if kind == outcome)

    def statuses(self) -> dict[int, int]:
        """HTTP status of the answers so far to their number."""
        with self._lock:
            return {status: number for (kind, status), number in self.counts.items() if kind == "answered"}

    def _work(self, index: int) -> None:
        asker = SyncClient(self._port)
        for request in itertools.islice(itertools.cycle(self._requests), index, None):
            if self._over.is_set():
                break
            result = asker.ask(request)
            with self._lock:
                self.counts[result] += 1
            if result[0] != "answered":
                self._over.wait(_PAUSE)
        asker.close()


def _read(connection: socket.socket) -> tuple[int, bool]:
    """The status of one answer with a Content-Length, and whether the connection lives on.

    Raises:
        ValueError: the connection ended first, or what came is no such answer.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines)
    left = int(fields[b"content-length"]) - len(body) if b"content-length" in fields else 0
    while left > 0:
        left -= len(_some(connection))
    return int(status.split()[1]), fields.get(b"connection") != b"close"


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ValueError("the connection ended in an answer")
    return data
