"""Clients in threads that tell requests that were lost from requests that were never accepted.

A request is accepted once it is sent whole over a connection that the server took: the server must respond. If the
connection is refused, or ends before the request is sent, the client may try another server, so nothing is lost.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from loadtest.client.blocking import SyncClient

Outcome = Literal["answered", "refused", "cut", "lost"]

_PAUSE_SECONDS = 0.01


def attempt(client: SyncClient, request: bytes) -> tuple[Outcome, int]:
    """Send a whole request and read the response; return the outcome, and the HTTP status or 0."""
    try:
        connection = client.connection()
    except OSError:
        return "refused", 0
    try:
        connection.send(request)
    except OSError:
        return "cut", 0
    try:
        return "answered", connection.receive().status
    except OSError:
        return "lost", 0


class ThreadedClients:
    """Concurrent clients, each in a thread, which send requests from `start` to `stop`.

    Args:
        port: of the server on 127.0.0.1.
        requests: sent in turn.
        clients: number of threads.
    """

    def __init__(self, port: int, requests: Sequence[bytes], clients: int) -> None:
        self.counts: Counter[tuple[Outcome, int]] = Counter()
        self._port = port
        self._requests = requests
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(index,), daemon=True) for index in range(clients)]

    def start(self) -> None:
        """Start to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send nothing new, and wait for the requests in flight."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def count(self, outcome: Outcome) -> int:
        """Return the number of requests with this outcome so far."""
        with self._lock:
            return sum(number for (kind, _), number in self.counts.items() if kind == outcome)

    def statuses(self) -> dict[int, int]:
        """Return the number of responses so far by HTTP status."""
        with self._lock:
            return {status: number for (kind, status), number in self.counts.items() if kind == "answered"}

    def _work(self, index: int) -> None:
        client = SyncClient(self._port)
        for request in itertools.islice(itertools.cycle(self._requests), index, None):
            if self._stopped.is_set():
                break
            result = attempt(client, request)
            with self._lock:
                self.counts[result] += 1
            if result[0] != "answered":
                self._stopped.wait(_PAUSE_SECONDS)
        client.close()
