"""Errors that end a worker: one line for the user, and an exit code for the supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn

from export.cuda.device import GpuError, GpuLostError
from models.common.cli import WRONG_REQUEST
from models.common.errors import HalftoneError
from models.common.text import line
from serving.process.signals import is_successor
from serving.telemetry.request_log import report

CRASHED = 1

logger = logging.getLogger("bentoml.halftone")

# Parts of the messages of the runtimes, which raise errors of their own.
_NO_MEMORY = (
    "bad_alloc",
    "bad allocation",
    "allocate memory",
    "out of memory",
    "can't start new thread",
    "memoryallocation",
)


def end_worker(name: str, error: Exception) -> NoReturn:
    """End this process, from any thread, because the model `name` can't be loaded.

    The exit code makes the supervisor start no other worker, which would fail in the same way. It does start one if the
    GPU was lost, or if a worker that replaces another one had not enough memory, which may be free again in a moment.
    """
    if not isinstance(error, HalftoneError) and not is_memory(error):
        logger.error("can't serve %s", name, exc_info=error)
    _flush()
    report("error", f"can't serve {name}: {line(explain(error))}")
    passes = isinstance(error, GpuLostError) or (is_successor() and is_memory(error))
    os._exit(CRASHED if passes else WRONG_REQUEST)


def exit_broken(name: str, error: BaseException) -> NoReturn:
    """End this process, from any thread, which lost its GPU or a thread; the supervisor starts another worker."""
    logger.critical("%s can't run any more in this process, which ends: %s", name, error)
    _flush()
    os._exit(CRASHED)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # The reader may be gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def explain(error: Exception) -> str:
    """Return one line that says what happened and what to do."""
    if isinstance(error, HalftoneError):
        return str(error)
    if isinstance(error, GpuError):
        return f"{error}; stop what else uses the GPU, or choose a variant of another runtime with HALFTONE_VARIANT"
    if is_memory(error):
        return "there is not enough memory to load it: give the process more, or serve a smaller model"
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (the traceback is in the log)"


def is_memory(error: Exception) -> bool:
    """Return True if the error means that there is not enough memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)
