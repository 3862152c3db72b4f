"""Stop a worker whose supervisor is gone: killed, or ended by a signal that it does not handle.

The supervisor alone holds one end of a pipe and each worker inherits the other, which ends with the supervisor, however
that happened. The id of the parent process says less: a supervisor may end before its worker looks for the first time,
and in a container the parent may be another process.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable

from serving.process.signals import SERVICE_STOP
from serving.process.worker_table import FOLDER

VARIABLE = "_HALFTONE_LIFELINE"
"""Environment variable with the file descriptor of the workers' end."""

_FAILED = 1

logger = logging.getLogger("bentoml.halftone")


def create() -> tuple[int, int]:
    """Return the workers' end, which child processes inherit, and the supervisor's, which is never written to."""
    workers, supervisor = os.pipe()
    os.set_inheritable(workers, True)
    return workers, supervisor


def watch(loaded: Callable[[], bool]) -> None:
    """Stop this process once its supervisor is gone; without a supervisor of ours, do nothing.

    A worker with its models stops as the whole service does: it fails readiness and finishes what it has accepted. One
    that still loads them ends at once.

    Args:
        loaded: returns True once the worker has its models.
    """
    descriptor = int(os.environ.pop(VARIABLE, -1))
    try:
        # The variable alone could come from any environment.
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            return
        os.set_inheritable(descriptor, False)
    except OSError:
        return
    threading.Thread(target=_wait_and_stop, args=(descriptor, loaded), name="lifeline", daemon=True).start()


def _wait_and_stop(descriptor: int, loaded: Callable[[], bool]) -> None:
    while os.read(descriptor, 1):
        pass
    logger.critical("the supervisor is gone: this worker stops")
    if FOLDER in os.environ:
        # The supervisor would have removed it.
        shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
    if loaded():
        os.kill(os.getpid(), SERVICE_STOP)
    else:
        sys.stdout.flush()
        os._exit(_FAILED)
