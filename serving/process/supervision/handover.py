"""From BentoML's process to a small one: the supervisor needs none of the libraries that `bentoml serve` has imported.

BentoML's command line and the service take 100 MB, of which supervision uses circus alone. `bentoml serve` makes a
`Handover` in place of its supervisor. It replaces the program of this process (exec): the process id, the forked
workers and the terminal stay, and the command line still ends as it was typed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from serving.process.bentoml_compat import socket_class, use_arbiter, watcher_class
from serving.process.supervision import forked
from serving.telemetry.request_log import JsonFormatter, configure

TEMPORARY = "_HALFTONE_TEMPORARY"
"""Environment variable with a folder that goes when the service ends."""

_ROOT = Path(__file__).parents[3]
_PROGRAM = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from {__name__} import resume; resume(int(sys.argv[1]))"
_FORMAT, _TIME = "%(asctime)s [%(levelname)s] [cli] %(message)s", "%Y-%m-%dT%H:%M:%S%z"
"""Those of BentoML."""

_WATCHER = (
    *("name", "cmd", "args", "numprocesses", "working_dir", "env", "respawn"),
    *("close_child_stdin", "use_sockets", "stop_children", "graceful_timeout"),
)
_SOCKET = ("name", "host", "port", "family", "backlog")


class Handover:
    """Has what `bentoml serve` uses of its supervisor.

    Args:
        watchers: of circus.
        sockets: of circus, not bound yet.
        options: of circus' arbiter.
    """

    bundles: Path
    """Folder of the bundles, for the log."""

    guarded: bool
    """False if no API key is asked for."""

    def __init__(self, watchers: list[Any], sockets: list[Any], **options: Any) -> None:
        self._watchers, self._sockets, self._options = watchers, sockets, options
        self.exit_stack = contextlib.ExitStack()

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        """Supervise until a signal arrives or the workers can't start; where workers are forked, in a small process."""
        # What BentoML would clean up at the end is not needed: the folder of the sockets of other services.
        self.exit_stack.close()
        if not forked.SUPPORTED or self._options.get("plugins") or self._options.get("debug"):
            self._supervise()
        for each in self._sockets:
            # Circus makes them inheritable.
            each.close()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        state = os.memfd_create("halftone", 0)
        os.write(state, json.dumps(self._state()).encode())
        forked.keep()
        # A signal that arrives before the handlers are there ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-P", "-c", _PROGRAM, str(state), *sys.argv])

    def _supervise(self) -> NoReturn:
        from serving.process.supervision.supervisor import Supervisor

        Supervisor(self._watchers, self._sockets, bundles=self.bundles, guarded=self.guarded, **self._options).run()

    def _state(self) -> dict[str, Any]:
        log = logging.getLogger("bentoml")
        return {
            "watchers": [{name: getattr(each, name) for name in _WATCHER} for each in self._watchers],
            "sockets": [{name: getattr(each, name) for name in _SOCKET} for each in self._sockets],
            "waiting": forked.waiting(),
            "level": log.level,
            "json": any(isinstance(handler.formatter, JsonFormatter) for handler in log.handlers),
            "bundles": str(self.bundles),
            "guarded": self.guarded,
        }


def install(bundles: Path, *, guarded: bool) -> None:
    """Let `bentoml serve` use our supervisor; to be called before it makes its own."""
    use_arbiter(type("Handover", (Handover,), {"bundles": bundles, "guarded": guarded}))


def resume(descriptor: int) -> NoReturn:
    """Supervise in the process that replaced BentoML's.

    Args:
        descriptor: of the file with the state.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from serving.process.supervision.supervisor import Supervisor

    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        state = json.load(file)
    _log(state["level"], "json" if state["json"] else "text")
    forked.adopt(state["waiting"])
    supervisor = Supervisor(
        [watcher_class()(**each, copy_env=True) for each in state["watchers"]],
        [socket_class()(**each) for each in state["sockets"]],
        bundles=Path(state["bundles"]),
        guarded=state["guarded"],
    )
    supervisor.exit_stack.callback(shutil.rmtree, os.environ.get(TEMPORARY, ""), ignore_errors=True)
    supervisor.run()


def _log(level: int, form: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(_FORMAT, _TIME))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    ours = logging.getLogger("bentoml")
    ours.setLevel(level)
    ours.addHandler(handler)
    ours.propagate = False
    configure(form)
