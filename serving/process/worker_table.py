"""Memory that a supervisor and its workers share: who is there, who answers, and how many connections each has."""

from __future__ import annotations

import mmap
import os
import tempfile

from serving.process.signals import SUPERVISOR
from serving.settings import MOST_WORKERS

VARIABLE = "_HALFTONE_CREW"

"""Environment variable with the number of the descriptor that workers inherit."""

FOLDER = "_HALFTONE_FOLDER"

"""Environment variable with the folder of their sockets, where there are several; only their user can enter it."""

# A worker that is replaced while it still answers has a number from the second half.
_PLACES = 2 * MOST_WORKERS

_FIELDS = 4

_PID, _READY, _TAKING, _LISTENING = range(_FIELDS)

_BYTES = 8 * _FIELDS * _PLACES


class WorkerTable:
    """All workers of a service.

    Args:
        descriptor: of the shared memory, which stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._values = memoryview(mmap.mmap(descriptor, _BYTES)).cast("q")

    def ended(self, pid: int) -> bool:
        """A worker has ended: forget it, and say whether it had answered."""
        for start in range(0, len(self._values), _FIELDS):
            if self._values[start + _PID] == pid:
                ready = bool(self._values[start + _READY])
                for field in range(_FIELDS):
                    self._values[start + field] = 0
                return ready
        return False

    def member(self, number: int, workers: int = MOST_WORKERS) -> WorkerSlot:
        """This process' own place.

        Args:
            number: of the worker, from 1 to twice the number of workers.
            workers: how many there are, for a quick look at all of them.
        """
        return WorkerSlot(self._values[: 2 * workers * _FIELDS], number - 1)


class WorkerSlot:
    """A worker's place among the others.

    Args:
        values: of all places, four each.
        place: its own, from 0 on.
    """

    def __init__(self, values: memoryview, place: int) -> None:
        self._values = values
        self._start = _FIELDS * place
        self._retired = False
        for field in range(_FIELDS):
            values[self._start + field] = 0
        values[self._start + _PID] = os.getpid()

    def answers(self) -> None:
        """It has its models."""
        self._values[self._start + _READY] = 1

    def listens(self, listening: bool) -> None:
        """Whether it takes connections, if only because nobody else does."""
        self._values[self._start + _LISTENING] = listening

    def tell(self, connections: int) -> None:
        """It has so many connections, and takes its share of new ones."""
        if not self._retired:
            # One more, as 0 says that it takes none.
            self._values[self._start + _TAKING] = connections + 1

    def retire(self) -> None:
        """It leaves new connections to the others, as long as there are any that take them."""
        self._retired = True
        self._values[self._start + _TAKING] = 0

    def fewest_elsewhere(self) -> int | None:
        """How many connections the worker has that has the fewest of all others; None where no other one takes any."""
        return min((value - 1 for value in self._others(_TAKING) if value), default=None)

    def others_answer(self) -> bool:
        """Whether another worker listens that has its models, even if it is about to stop."""
        return any(
            listens and ready for listens, ready in zip(self._others(_LISTENING), self._others(_READY), strict=True)
        )

    def is_last(self) -> bool:
        """Whether no other worker listens any more."""
        return not any(self._others(_LISTENING))

    def _others(self, field: int) -> list[int]:
        values = self._values[field::_FIELDS].tolist()
        del values[self._start // _FIELDS]
        return values


def create() -> int:
    """The descriptor of new shared memory, which child processes inherit.

    Raises:
        OSError: there is no room for it.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("halftone")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    # Written and not only made longer: a page for which there is no room would end whoever writes to it first.
    os.write(descriptor, bytes(_BYTES))
    os.set_inheritable(descriptor, True)
    return descriptor


def joined(number: int, workers: int) -> WorkerSlot | None:
    """This worker's place; None where it has no supervisor of ours.

    Args:
        number: of the worker, from 1 on.
        workers: how many there are.
    """
    if os.environ.get(SUPERVISOR) != str(os.getppid()) or VARIABLE not in os.environ:
        return None
    return WorkerTable(int(os.environ[VARIABLE])).member(number, workers)
