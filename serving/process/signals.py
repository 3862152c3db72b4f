"""What a worker and its supervisor tell each other with signals."""

from __future__ import annotations

import os
import signal

SUPERVISOR = "_HALFTONE_SUPERVISOR"
"""Environment variable with the process id of a supervisor that wants to be told when the worker is ready."""

SUCCESSOR = "_HALFTONE_SUCCESSOR"
"""Environment variable that is set for a worker that takes the place of one that was ready."""

ALL_STOP = signal.SIGUSR1
"""Sent to a worker where the whole service stops. SIGTERM is for one worker, whose place another one takes."""

READY = signal.SIGUSR1
"""Sent to the supervisor by a worker that is ready."""


def tell_ready() -> None:
    """Let the supervisor know, if it wants to, that this worker answers."""
    if os.environ.get(SUPERVISOR) == str(os.getppid()):
        os.kill(os.getppid(), READY)


def is_successor() -> bool:
    """Whether clients wait already for this worker: those whom the last one left in the listening socket."""
    return SUCCESSOR in os.environ
