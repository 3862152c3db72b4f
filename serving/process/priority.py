"""Priority of threads: work that nothing waits for, or that must not delay other requests, takes only idle cores."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOWEST = 19
"""Runs on cores that are idle: against a busy thread it gets a sixtieth of a core."""

LOW = 10
"""Gets a tenth of a core against a busy thread, so that what a client waits for ends."""


def lower_priority(nice: int) -> None:
    """Give the calling thread this niceness, `LOW` or `LOWEST`; does nothing on other systems than Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            # On Linux a priority belongs to a thread, not to the process.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
