"""Table of the workers in memory that they share with the supervisor: readiness and number of connections of each."""

from __future__ import annotations

import mmap
import os
import tempfile

from serving.process.signals import has_supervisor

VARIABLE = "_HALFTONE_WORKER_TABLE"
"""Environment variable with the file descriptor of the table, which workers inherit."""

FOLDER = "_HALFTONE_FOLDER"
"""Environment variable with the folder for the workers' sockets, if there are several; only their user can enter it."""

_FIELDS = 4
_PID, _READY, _ACCEPTING, _LISTENING = range(_FIELDS)
_BYTES = 8


class WorkerTable:
    """All workers of a service.

    Args:
        descriptor: of the shared memory; the caller closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._values = memoryview(mmap.mmap(descriptor, 0)).cast("q")

    def remove(self, pid: int) -> bool:
        """Clear the slot of a worker that has ended. Return True if it had become ready."""
        for start in range(0, len(self._values), _FIELDS):
            if self._values[start + _PID] == pid:
                ready = bool(self._values[start + _READY])
                for field in range(_FIELDS):
                    self._values[start + field] = 0
                return ready
        return False

    def slot(self, number: int) -> WorkerSlot:
        """Take a slot for this process and return it.

        Args:
            number: of the worker, from 1 to twice the number of workers.
        """
        return WorkerSlot(self._values, number - 1)


class WorkerSlot:
    """One worker's slot, with read access to those of the others.

    Args:
        values: of all slots, `_FIELDS` each.
        index: of this slot, from 0 on.
    """

    def __init__(self, values: memoryview, index: int) -> None:
        self._values = values
        self._start = _FIELDS * index
        self._retired = False
        for field in range(_FIELDS):
            values[self._start + field] = 0
        values[self._start + _PID] = os.getpid()

    def mark_ready(self) -> None:
        """Publish that this worker has loaded its models."""
        self._values[self._start + _READY] = 1

    def set_listening(self, listening: bool) -> None:
        """Publish if this worker watches the listening socket, even if it leaves connections to other workers."""
        self._values[self._start + _LISTENING] = listening

    def publish_connections(self, count: int) -> None:
        """Publish that this worker has `count` connections and accepts its share of new ones."""
        if not self._retired:
            # Plus 1: 0 means that the worker accepts none.
            self._values[self._start + _ACCEPTING] = count + 1

    def retire(self) -> None:
        """Leave new connections to the other workers from now on, as long as any of them accepts some."""
        self._retired = True
        self._values[self._start + _ACCEPTING] = 0

    def fewest_elsewhere(self) -> int | None:
        """Return the connections of the other worker that has the fewest; None if no other one accepts any."""
        return min((value - 1 for value in self._others(_ACCEPTING) if value), default=None)

    def another_is_ready(self) -> bool:
        """Return True if another worker listens and has loaded its models, even if it is about to stop."""
        return any(
            listening and ready for listening, ready in zip(self._others(_LISTENING), self._others(_READY), strict=True)
        )

    def is_last(self) -> bool:
        """Return True if no other worker listens."""
        return not any(self._others(_LISTENING))

    def _others(self, field: int) -> list[int]:
        values = self._values[field::_FIELDS].tolist()
        del values[self._start // _FIELDS]
        return values


def create(workers: int) -> int:
    """Return the descriptor of new shared memory for a table, which child processes inherit.

    Args:
        workers: number of workers. There are as many more slots: a worker that is replaced while it still serves has a
            number from the second half.

    Raises:
        OSError: there is no room for it.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("halftone")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    # Written instead of truncated to this length: the first process that writes to a page without room is killed.
    os.write(descriptor, bytes(_BYTES * _FIELDS * 2 * workers))
    os.set_inheritable(descriptor, True)
    return descriptor


def attach(number: int) -> WorkerSlot | None:
    """Return this worker's slot; None if its parent process is not a supervisor of ours.

    Args:
        number: of the worker, from 1 on.
    """
    if not has_supervisor() or VARIABLE not in os.environ:
        return None
    return WorkerTable(int(os.environ[VARIABLE])).slot(number)
