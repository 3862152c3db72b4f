"""Merge the metrics of all workers of a service, each with the label `worker`, in the worker that receives the scrape.

A worker keeps its numbers in its own memory, which is cheapest, and sends them to another worker on request, over a
socket in a folder that only the service's user can enter. The numbers are not added up: sums would fall when a worker
is replaced, whereas Prometheus handles the restart of a single worker's counter.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import prometheus_client

logger = logging.getLogger("bentoml.halftone")

LABEL = "worker"

_TIMEOUT = 2.0
_RETRY_SECONDS = 0.1
_PREFIX = "metrics-"

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""Name, help, type, and samples: name, labels and value."""


class Collector(Protocol):
    """A collector of prometheus_client."""

    def collect(self) -> Iterable[prometheus_client.Metric]:
        """Return the families."""


class WorkerMetrics:
    """Collector of the metrics of all workers.

    Args:
        folder: for the sockets of the workers.
        number: of this worker; a worker that replaces another one has the same number.
        own: collector of this worker's metrics.
    """

    def __init__(self, folder: Path, number: int, own: Collector) -> None:
        self._folder = folder
        self._number = number
        self._own = own

    def start(self) -> None:
        """Serve this worker's metrics to the others from now on, in a thread.

        Raises:
            OSError: there can be no socket in the folder.
        """
        path, temporary = self._folder / f"{_PREFIX}{self._number}", self._folder / f"begun-{self._number}"
        temporary.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(temporary))
            listener.listen()
            # The rename replaces the socket of a killed predecessor, and no worker sees a socket that does not listen.
            temporary.rename(path)
        except OSError:
            listener.close()
            raise
        threading.Thread(target=self._serve, args=(listener,), name="metrics", daemon=True).start()

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """Yield the families of all workers, without workers that do not respond in time."""
        from prometheus_client import Metric

        by_worker = [(self._number, _families(self._own)), *self._fetch_all()]
        merged: dict[str, prometheus_client.Metric] = {}
        for number, families in sorted(by_worker, key=lambda each: each[0]):
            for name, text, kind, samples in families:
                family = merged.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, labels | {LABEL: str(number)}, value)
        yield from merged.values()

    def _fetch_all(self) -> Iterator[tuple[int, list[Family]]]:
        sockets = {int(path.name.removeprefix(_PREFIX)): path for path in self._folder.glob(f"{_PREFIX}*")}
        sockets.pop(self._number, None)
        with ThreadPoolExecutor(max(1, len(sockets)), thread_name_prefix="metrics") as pool:
            for number, families in zip(sockets, pool.map(_fetch_or_none, sockets.values()), strict=True):
                if families is not None:
                    yield number, families

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(_TIMEOUT)
                    connection.sendall(json.dumps(_families(self._own)).encode())
            # The other worker is gone or too slow, or this process can't open files: serve the next request.
            except Exception as error:
                logger.warning("no metrics for another worker: %r", error)
                time.sleep(_RETRY_SECONDS)


def _fetch_or_none(path: Path) -> list[Family] | None:
    """Return the families of another worker; None if it does not respond."""
    try:
        return _fetch(path)
    except ConnectionRefusedError:
        # The worker has ended; the one that replaces it makes a socket of its own.
        path.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        logger.warning("no metrics from another worker: %r", error)
    return None


def _fetch(path: Path) -> list[Family]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(str(path))
        with connection.makefile("rb") as stream:
            families: list[Family] = json.loads(stream.read())
    return families


def _families(collector: Collector) -> list[Family]:
    return [
        (each.name, each.documentation, each.type, [(s.name, s.labels, s.value) for s in each.samples])
        for each in collector.collect()
    ]
