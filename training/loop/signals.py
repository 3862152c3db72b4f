"""SIGINT and SIGTERM as a request to stop after the current step, so that the run saves a checkpoint first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StoppedError(Exception):
    """The user stopped the run; its state is saved."""


class StopRequest:
    """Request of the user to end the run."""

    def __init__(self) -> None:
        self.pending = False


@contextlib.contextmanager
def handle_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a stop request within the context; a second signal interrupts immediately."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.pending:
            raise KeyboardInterrupt
        request.pending = True

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
