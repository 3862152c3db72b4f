"""Supervisor of `bentoml serve` that tells a failed start from a crash and replaces a dead worker at once.

BentoML lets circus supervise its workers: it checks them every ten seconds, restarts a worker that can't start without
end, exits with code 0 whatever happened, and prints a traceback if the port is taken.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from circus.exc import ConflictError  # type: ignore[import-untyped]

from models.common.cli import WRONG_REQUEST
from serving.process import lifeline, worker_table
from serving.process.bentoml_compat import ADDRESSES, arbiter_class, is_stopping, use_process
from serving.process.signals import READY, SERVICE_STOP, SUCCESSOR, SUPERVISOR
from serving.process.supervision import forked
from serving.telemetry.request_log import report

FAILED = 1
"""Exit code if a worker ended before it was ready and did not say why."""

MOST_DEATHS = 3
"""Workers in a row that may end before they are ready, once the service was ready."""

_RETRY_SECONDS = 0.05
_LONGEST_PAUSE = 60.0

_IN_PROCESS = {"endpoint": "inproc://control", "pubsub_endpoint": "inproc://events"}
"""Replaces two TCP ports: every user of the machine could send circus commands there, and another process may take a
port after BentoML chose it and before circus binds it."""


_CHECKS = {"check_delay": 10}
"""Seconds, as in BentoML: a signal tells of a worker that has ended at once."""

_LARGEST_PORT = 65_535
_EVERY_ADDRESS = ("0.0.0.0", "::")
_OPEN = (
    "anybody who reaches this machine may ask: %s:%d is open to all its networks, and there is no API key; "
    "`--host 127.0.0.1` keeps it to this machine, HALFTONE_API_KEYS asks for a key"
)

logger = logging.getLogger("bentoml.halftone")


class Supervisor(arbiter_class()):  # type: ignore[misc]
    """Starts the workers, replaces those that die, and gives up if new ones can't start either.

    Its exit code is 0 after a signal, 2 if a worker can't serve (it has printed why), and 1 if workers died of
    something else. While another worker serves, the supervisor keeps trying to replace a lost one.

    Args:
        watchers: of circus.
        sockets: of circus, not bound yet.
        bundles: folder of the bundles, for the log.
        guarded: False if no API key is asked for.
        options: of circus' arbiter.
    """

    def __init__(
        self, watchers: list[Any], sockets: list[Any], *, bundles: Path, guarded: bool, **options: Any
    ) -> None:
        super().__init__(watchers, sockets=sockets, **_CHECKS | options | _IN_PROCESS)
        self.exit_stack = contextlib.ExitStack()
        self._bundles, self._guarded = bundles, guarded
        self._exit_code = 0
        self._was_ready = False
        self._deaths = 0
        descriptor = worker_table.create(sum(watcher.numprocesses for watcher in watchers))
        self._table = worker_table.WorkerTable(descriptor)
        # The second one is open until this process ends.
        theirs, self._lifeline = lifeline.create()
        variables = {
            SUPERVISOR: str(os.getpid()),
            worker_table.VARIABLE: str(descriptor),
            lifeline.VARIABLE: str(theirs),
        }
        if any(watcher.numprocesses > 1 for watcher in watchers):
            folder = tempfile.mkdtemp(prefix="halftone-")
            self.exit_stack.callback(shutil.rmtree, folder, ignore_errors=True)
            variables[worker_table.FOLDER] = folder
        process = forked.worker_class([descriptor, theirs])
        for watcher in watchers:
            use_process(watcher, process)
            watcher.hooks["after_reap"] = self._on_worker_ended
            watcher.env = {**(watcher.env or {}), **variables}
            watcher.respawn |= _has_others(watcher)

    def initialize(self) -> None:
        """Bind the port; if that fails, print why and exit. Log the bundles' folder, and if the network may ask."""
        circus = logging.getLogger("circus")
        if (port := self._port()) > _LARGEST_PORT:
            self._exit(f"there is no port {port}: name one from 1 to {_LARGEST_PORT} with --port")
        try:
            # circus would log the same error.
            circus.disabled = True
            super().initialize()
            circus.disabled = False
        except OSError as error:
            self._exit(self._bind_error(error))
        logger.info("bundles: %s", self._bundles)
        if not self._guarded:
            for socket in self.sockets.values():
                if socket.host in _EVERY_ADDRESS:
                    logger.warning(_OPEN, socket.host, socket.port)

    def _urls(self) -> list[str]:
        addresses = [(watcher.env or {}).get(ADDRESSES, "{}") for watcher in self.watchers]
        return [url for each in addresses for url in json.loads(each).values()]

    def _port(self) -> int:
        """Return the port as it was asked for: the socket has only its last 16 bits."""
        return max((int(port) for url in self._urls() for port in re.findall(r":(\d+)$", url)), default=0)

    def _exit(self, reason: str) -> NoReturn:
        report("error", reason)
        self.exit_stack.close()
        # Threads of the message queue would keep the process alive.
        os._exit(WRONG_REQUEST)

    def run(self) -> NoReturn:
        """Serve until a signal arrives or the supervisor gives up, and end this process."""
        signal.signal(signal.SIGCHLD, self._on_loop(self._reap))
        signal.signal(READY, self._on_loop(self._on_worker_ready))
        try:
            self.start(self._on_started).result()
        except RuntimeError:
            # circus has no worker left and may not start one.
            if not self._exit_code:
                raise
        finally:
            self.exit_stack.close()
        sys.exit(self._exit_code)

    def _on_started(self, _: Any) -> None:
        for url in self._urls():
            logger.info("Starting production HTTP BentoServer listening on %s (Press CTRL+C to quit)", url)

    def stop(self) -> Any:
        """Stop the workers, each of which drains its requests, then this process."""
        for watcher in self.watchers:
            watcher.stop_signal = SERVICE_STOP
        try:
            return super().stop()
        except ConflictError:
            # circus executes one command at a time and drops those that arrive meanwhile.
            return self.loop.call_later(_RETRY_SECONDS, self.stop)

    def _on_loop(self, act: Callable[[], Any]) -> Callable[[int, FrameType | None], None]:
        """Return a signal handler that calls `act` on the event loop."""
        # Tornado's own `add_callback` does not wake a loop that sleeps in this very thread.
        return lambda number, frame: self.loop.asyncio_loop.call_soon_threadsafe(act)

    def _reap(self) -> None:
        if is_stopping(self):
            return
        try:
            self.manage_watchers()
        except ConflictError:
            self.loop.call_later(_RETRY_SECONDS, self._reap)

    def _on_worker_ready(self) -> None:
        self._was_ready = True
        self._deaths = 0
        for watcher in self.watchers:
            watcher.env[SUCCESSOR] = "1"

    def _on_worker_ended(self, *, exit_code: int, process_pid: int, watcher: Any, **_: Any) -> None:
        """Decide what follows the end of a worker: right after this hook, circus starts another one if it may."""
        was_ready = self._table.remove(process_pid)
        if is_stopping(self) or self._exit_code:
            return
        self._deaths = 0 if was_ready else self._deaths + 1
        # A pause may have switched it off.
        watcher.respawn |= _has_others(watcher)
        if self._was_ready and watcher.processes:
            self._replace(watcher, exit_code)
        elif exit_code == WRONG_REQUEST:
            self._give_up(exit_code)
        elif self._deaths > (MOST_DEATHS if self._was_ready else 0):
            report("error", f"the worker {_ended(exit_code)} before it was ready{_hint(exit_code)}")
            self._give_up(FAILED)
        elif watcher.respawn:
            report("warning", f"the worker {_ended(exit_code)}: another one is started")
        else:
            report("error", f"the worker {_ended(exit_code)}")
            self._give_up(FAILED)

    def _replace(self, watcher: Any, exit_code: int) -> None:
        """Start another worker while others serve: at once, or after a pause if the last ones could not start."""
        pause = min(_LONGEST_PAUSE, 2.0 ** min(self._deaths, MOST_DEATHS * 2)) if self._deaths else 0.0
        when = f" in {pause:g} s" if pause else ""
        report("warning", f"a worker {_ended(exit_code)}: another one is started{when}")
        if pause:
            watcher.respawn = False
            self.loop.call_later(pause, self._retry, watcher)

    def _retry(self, watcher: Any) -> None:
        if not self._exit_code:
            watcher.respawn = True
            self._reap()

    def _give_up(self, exit_code: int) -> None:
        self._exit_code = exit_code
        for watcher in self.watchers:
            watcher.respawn = False
            if watcher.processes:
                # Other workers still serve.
                self.loop.call_later(_RETRY_SECONDS, lambda: is_stopping(self) or self.stop())

    def _bind_error(self, error: OSError) -> str:
        address = ", ".join(f"{sock.host}:{sock.port}" for sock in self.sockets.values() if not sock.is_unix)
        reasons = {
            errno.EADDRINUSE: "the port is taken: stop what listens there, or choose another one with --port",
            errno.EACCES: "this port needs more rights: choose one from 1024 up with --port",
            errno.EADDRNOTAVAIL: "this machine has no such address: choose another one with --host",
        }
        reason = reasons.get(error.errno or 0, error.strerror or str(error))
        return f"can't listen on {address}: {reason}"


def _has_others(watcher: Any) -> bool:
    """Return True if the loss of one worker leaves others.

    The loss of the only worker ends the service: in a container, the orchestrator then starts another one.
    """
    return bool(watcher.numprocesses > 1)


def _ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was ended by {signal.Signals(-exit_code).name}"


def _hint(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return ": most likely there is not enough memory; give it more, or serve a smaller model"
    return ": see the log above"
