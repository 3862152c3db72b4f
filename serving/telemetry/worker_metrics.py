"""Metrics of all workers of a service, whichever of them is asked: each with the label `worker`.

A worker keeps its numbers to itself, which costs the least, and tells them to another one that is asked for /metrics,
over a socket in a folder that only the service's user can enter. Sums would fall when a worker is replaced; Prometheus
knows what to do about a single worker's counter that begins again.
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

_PATIENCE = 2.0
_PAUSE = 0.1
_PREFIX = "metrics-"

Family = tuple[str, str, str, list[tuple[str, dict[str, str], float]]]
"""Name, help, type, and samples: name, labels and value."""


class Collector(Protocol):
    """As prometheus_client's collectors."""

    def collect(self) -> Iterable[prometheus_client.Metric]:
        """The families."""


class WorkerMetrics:
    """A worker among others.

    Args:
        folder: where their sockets are.
        number: of this worker, which is that of the one whose place it took.
        own: what it has to tell itself.
    """

    def __init__(self, folder: Path, number: int, own: Collector) -> None:
        self._folder = folder
        self._number = number
        self._own = own

    def start(self) -> None:
        """Tell the others from now on, in a thread.

        Raises:
            OSError: there can be no socket in the folder.
        """
        path, begun = self._folder / f"{_PREFIX}{self._number}", self._folder / f"begun-{self._number}"
        begun.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(begun))
            listener.listen()
            # In the place of one that was killed; whoever finds a socket can ask it.
            begun.rename(path)
        except OSError:
            listener.close()
            raise
        threading.Thread(target=self._tell, args=(listener,), name="metrics", daemon=True).start()

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """The families of all workers; of those that don't answer in time, nothing."""
        from prometheus_client import Metric

        told = [(self._number, _families(self._own)), *self._asked()]
        merged: dict[str, prometheus_client.Metric] = {}
        for number, families in sorted(told, key=lambda each: each[0]):
            for name, text, kind, samples in families:
                family = merged.setdefault(name, Metric(name, text, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, labels | {LABEL: str(number)}, value)
        yield from merged.values()

    def _asked(self) -> Iterator[tuple[int, list[Family]]]:
        found = {int(path.name.removeprefix(_PREFIX)): path for path in self._folder.glob(f"{_PREFIX}*")}
        found.pop(self._number, None)
        with ThreadPoolExecutor(max(1, len(found)), thread_name_prefix="metrics") as pool:
            for number, families in zip(found, pool.map(_told, found.values()), strict=True):
                if families is not None:
                    yield number, families

    def _tell(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(_PATIENCE)
                    connection.sendall(json.dumps(_families(self._own)).encode())
            # Whoever asked is gone or too slow, or this process has no more files: the next one is to be told.
            except Exception as error:
                logger.warning("no metrics for another worker: %r", error)
                time.sleep(_PAUSE)


def _told(path: Path) -> list[Family] | None:
    """What a worker tells; None where it doesn't."""
    try:
        return _ask(path)
    except ConnectionRefusedError:
        # It has ended, and whoever takes its place makes a socket of its own.
        path.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        logger.warning("no metrics from another worker: %r", error)
    return None


def _ask(path: Path) -> list[Family]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(path))
        with connection.makefile("rb") as stream:
            families: list[Family] = json.loads(stream.read())
    return families


def _families(collector: Collector) -> list[Family]:
    return [
        (each.name, each.documentation, each.type, [(s.name, s.labels, s.value) for s in each.samples])
        for each in collector.collect()
    ]
