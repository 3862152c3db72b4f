"""What workers and their supervisor tell each other: signals, and files in a folder that only their user can read."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

SUPERVISOR = "_HALFTONE_SUPERVISOR"
"""Environment variable with the process id of a supervisor that wants to be told when the worker is ready."""

SUCCESSOR = "_HALFTONE_SUCCESSOR"
"""Environment variable that is set for a worker that takes the place of one that was ready."""

MEETING = "_HALFTONE_MEETING"
"""Environment variable with the folder of this service's processes."""

ALL_STOP = signal.SIGUSR1
"""Sent to a worker where the whole service stops. SIGTERM is for one worker, whose place another one takes."""

READY = signal.SIGUSR1
"""Sent to the supervisor by a worker that is ready."""


def tell_ready() -> None:
    """Let the supervisor know, if it wants to, that this worker answers."""
    if os.environ.get(SUPERVISOR) == str(os.getppid()):
        # The folder goes where the supervisor is about to end.
        with contextlib.suppress(OSError):
            _mark(Path(os.environ[MEETING]), os.getpid()).touch()
        os.kill(os.getppid(), READY)


def take_ready(meeting: Path, pid: int) -> bool:
    """Whether the worker of this number, which has ended, had told that it answers; to be asked once."""
    try:
        _mark(meeting, pid).unlink()
    except FileNotFoundError:
        return False
    return True


def meeting() -> Path | None:
    """The folder of this service's processes; None where no supervisor of ours made one."""
    return Path(os.environ[MEETING]) if os.environ.get(SUPERVISOR) == str(os.getppid()) else None


def is_successor() -> bool:
    """Whether clients wait already for this worker: those whom the last one left in the listening socket."""
    return SUCCESSOR in os.environ


def _mark(meeting: Path, pid: int) -> Path:
    return meeting / f"ready-{pid}"
