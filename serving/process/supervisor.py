"""BentoML's supervisor, made to tell a failed start from a crash, and to replace a dead worker at once.

BentoML lets circus look after its workers: it looks every ten seconds, starts a worker that can't start again and
again, ends with exit code 0 whatever happened, and prints a traceback where the port is taken.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

import bentoml._internal.utils.circus as bentoml_circus
from circus.exc import ConflictError  # type: ignore[import-untyped]

from models.common.cli import WRONG_REQUEST
from serving.process import worker_table as crew
from serving.process.signals import ALL_STOP, READY, SUCCESSOR, SUPERVISOR

FAILED = 1
"""Exit code where a worker ended before it was ready, and not by its own decision."""

MOST_DEATHS = 3
"""Workers in a row that may end before they are ready, once there was one that was."""

_SOON = 0.05
_LONGEST_PAUSE = 60.0

_WITHIN = {"endpoint": "inproc://control", "pubsub_endpoint": "inproc://events"}
"""Instead of two TCP ports: every user of the machine could give circus orders there, and another process may take a
port between BentoML's choice and circus' use of it."""


class Supervisor(bentoml_circus.Arbiter):
    """Starts the workers, replaces those that die, and gives up where that is in vain.

    Its exit code is 0 after a signal, 2 where a worker said that it can't serve (it has printed why), and 1 where
    workers died of something else. As long as another worker answers, a lost one is only tried again.
    """

    def __init__(self, watchers: list[Any], **options: Any) -> None:
        super().__init__(watchers, **options | _WITHIN)
        self._exit_code = 0
        self._was_ready = False
        self._deaths = 0
        descriptor = crew.create()
        self._crew = crew.WorkerTable(descriptor)
        known = {SUPERVISOR: str(os.getpid()), crew.VARIABLE: str(descriptor)}
        if any(watcher.numprocesses > 1 for watcher in watchers):
            folder = tempfile.mkdtemp(prefix="halftone-")
            self.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
            known[crew.FOLDER] = folder
        for watcher in watchers:
            watcher.hooks["after_reap"] = self._reaped
            watcher.env = {**(watcher.env or {}), **known}
            watcher.respawn |= _has_others(watcher)

    def initialize(self) -> None:
        """Bind the port; where that fails, say so and end."""
        circus = logging.getLogger("circus")
        try:
            # It would say the same thing twice.
            circus.disabled = True
            super().initialize()
            circus.disabled = False
        except OSError as error:
            print(f"error: {self._why_not(error)}", file=sys.stderr, flush=True)
            self.exit_stack.close()
            # Threads of the message queue would keep the process.
            os._exit(WRONG_REQUEST)

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        """Serve until a signal comes or the workers are given up."""
        signal.signal(signal.SIGCHLD, self._soon(self._reap))
        signal.signal(READY, self._soon(self._worker_is_ready))
        try:
            super().start(cb)
        except RuntimeError:
            # circus has no worker left, and no order to start one.
            if not self._exit_code:
                raise
        if self._exit_code:
            self.exit_stack.close()
            sys.exit(self._exit_code)

    def stop(self) -> Any:
        """End the workers, each when it has answered what it accepted, then this process."""
        for watcher in self.watchers:
            watcher.stop_signal = ALL_STOP
        try:
            return super().stop()
        except ConflictError:
            # circus does one thing at a time, and forgets an order that comes meanwhile.
            return self.loop.call_later(_SOON, self.stop)

    def _soon(self, act: Callable[[], Any]) -> Callable[[int, FrameType | None], None]:
        """A signal's handler that acts on the event loop."""
        # Tornado's own `add_callback` does not wake a loop that sleeps in this very thread.
        return lambda number, frame: self.loop.asyncio_loop.call_soon_threadsafe(act)

    def _reap(self) -> None:
        if self._stopping:
            return
        try:
            self.manage_watchers()
        except ConflictError:
            self.loop.call_later(_SOON, self._reap)

    def _worker_is_ready(self) -> None:
        self._was_ready = True
        self._deaths = 0
        for watcher in self.watchers:
            watcher.env[SUCCESSOR] = "1"

    def _reaped(self, *, exit_code: int, process_pid: int, watcher: Any, **_: Any) -> None:
        """A worker has ended: circus starts another one right after this, unless it is told not to."""
        ready = self._crew.ended(process_pid)
        if self._stopping or self._exit_code:
            return
        self._deaths = 0 if ready else self._deaths + 1
        # Which a pause may have switched off.
        watcher.respawn |= _has_others(watcher)
        if self._was_ready and watcher.processes:
            self._replace(watcher, exit_code)
        elif exit_code == WRONG_REQUEST:
            self._give_up(exit_code)
        elif self._deaths > (MOST_DEATHS if self._was_ready else 0):
            print(f"error: the worker {_ended(exit_code)} before it was ready{_hint(exit_code)}", file=sys.stderr)
            self._give_up(FAILED)
        elif watcher.respawn:
            print(f"warning: the worker {_ended(exit_code)}: another one is started", file=sys.stderr, flush=True)
        else:
            print(f"error: the worker {_ended(exit_code)}", file=sys.stderr)
            self._give_up(FAILED)

    def _replace(self, watcher: Any, exit_code: int) -> None:
        """Start another one while the others answer: at once, or after a pause where the last ones could not start."""
        pause = min(_LONGEST_PAUSE, 2.0 ** min(self._deaths, MOST_DEATHS * 2)) if self._deaths else 0.0
        when = f" in {pause:g} s" if pause else ""
        print(f"warning: a worker {_ended(exit_code)}: another one is started{when}", file=sys.stderr, flush=True)
        if pause:
            watcher.respawn = False
            self.loop.call_later(pause, self._again, watcher)

    def _again(self, watcher: Any) -> None:
        if not self._exit_code:
            watcher.respawn = True
            self._reap()

    def _give_up(self, exit_code: int) -> None:
        self._exit_code = exit_code
        for watcher in self.watchers:
            watcher.respawn = False
            if watcher.processes:
                # Other workers answer still.
                self.loop.call_later(_SOON, lambda: self._stopping or self.stop())

    def _why_not(self, error: OSError) -> str:
        address = ", ".join(f"{sock.host}:{sock.port}" for sock in self.sockets.values() if not sock.is_unix)
        reasons = {
            errno.EADDRINUSE: "the port is taken: stop what listens there, or choose another one with --port",
            errno.EACCES: "that takes more rights: choose a port from 1024 up with --port",
            errno.EADDRNOTAVAIL: "this machine has no such address: choose another one with --host",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        return f"can't listen on {address}: {reason}"


def _has_others(watcher: Any) -> bool:
    """Whether the loss of one worker leaves others.

    In a container that of the only one ends the service, for whoever runs it to start another one.
    """
    return bool(watcher.numprocesses > 1)


def install() -> None:
    """Let `bentoml serve` use this supervisor; to be called before it makes its own."""
    bentoml_circus.Arbiter = Supervisor  # type: ignore[misc]


def _ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was ended by {signal.Signals(-exit_code).name}"


def _hint(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return ": most likely there is not enough memory; give it more, or serve a smaller model"
    return ": see the log above"
