"""Ctrl-C and termination as a wish to stop at the next step, so that the run can save first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StoppedError(Exception):
    """The user stopped the run; its state is saved."""


class StopRequest:
    """Whether the user wants the run to end."""

    def __init__(self) -> None:
        self.raised = False


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request while it lasts; a second one interrupts at once."""
    request = StopRequest()

    def answer(number: int, frame: FrameType | None) -> None:
        if request.raised:
            raise KeyboardInterrupt
        request.raised = True

    previous = {number: signal.signal(number, answer) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
