"""Signals and environment variables between the supervisor and its workers."""

from __future__ import annotations

import os
import signal

SUPERVISOR = "_HALFTONE_SUPERVISOR"
"""Environment variable with the process id of a supervisor that expects `READY` from its workers."""

SUCCESSOR = "_HALFTONE_SUCCESSOR"
"""Environment variable that is set for a worker that replaces another one, after the service was ready once."""

SERVICE_STOP = signal.SIGUSR1
"""Sent to every worker when the whole service stops. SIGTERM stops one worker, which the supervisor replaces."""

READY = signal.SIGUSR1
"""Sent to the supervisor by a worker that is ready."""


def has_supervisor() -> bool:
    """Return True if the parent process is a supervisor of ours."""
    return os.environ.get(SUPERVISOR) == str(os.getppid())


def notify_ready() -> None:
    """Notify the supervisor, if there is one, that this worker is ready."""
    if has_supervisor():
        os.kill(os.getppid(), READY)


def is_successor() -> bool:
    """Return True if this worker replaces another one: clients wait for it already, in the listening socket."""
    return SUCCESSOR in os.environ
