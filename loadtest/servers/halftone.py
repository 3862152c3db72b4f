"""`bentoml serve` for the time of a measurement, and requests to it."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from loadtest.client.blocking import fetch, status_of
from loadtest.client.http1 import get, post
from loadtest.reporting.cli import PeerError, publish
from loadtest.servers.process import NotReadyError, ServerProcess, free_port, process_tree, server_process

Result = TypeVar("Result")

DEFAULT_MODEL = "efficientnet_lite0"

_REQUEST_SECONDS = 10
_WORKER_MODULE = "_bentoml_impl.worker"
_WORKERS_SETTING = re.compile(r"^HALFTONE_WORKERS=(\d+)$", re.MULTILINE)
_MODEL_OF_WORKER = re.compile(rb'^halftone_model_info\{.*worker="([^"]*)"', re.MULTILINE)


class RefusedError(Exception):
    """The server will refuse this request however often it is sent; the message is the server's."""


class Server(ServerProcess):
    """A running `bentoml serve`."""

    def classify(self, picture: bytes) -> dict[str, Any] | None:
        """Return the response to one picture; None while the server is not ready.

        Raises:
            RefusedError: the server refuses the picture.
        """
        try:
            response = fetch(self.port, post("/classify", picture), timeout=_REQUEST_SECONDS)
        except OSError:
            return None
        if 400 <= response.status < 500 and response.status != 429:
            raise RefusedError(json.loads(response.body)["error"]["message"])
        return dict(json.loads(response.body)) if response.status == 200 else None

    def wait_until_ready(self) -> None:
        """Wait until all models are loaded; if that fails, print the end of the log and exit with 1."""

        def attempt() -> None:
            status = status_of(self.port, "/readyz", timeout=_REQUEST_SECONDS)
            if status != 200:
                raise NotReadyError(f"/readyz {status}")

        self._wait_or_exit(attempt)

    def first_answer(self, picture: bytes) -> dict[str, Any]:
        """Send the picture until there is a response; if that fails, print the end of the log and exit with 1.

        Raises:
            RefusedError: the server refuses the picture.
        """

        def attempt() -> dict[str, Any]:
            answer = self.classify(picture)
            if answer is None:
                raise NotReadyError("no response")
            return answer

        self._wait_or_exit(attempt)
        self._wait_or_exit(lambda: check_refined(self.port))
        # Measurements may have chosen another variant.
        return self._wait_or_exit(attempt)

    def worker(self) -> psutil.Process:
        """Return the first process that serves requests.

        Raises:
            RuntimeError: there is none.
        """
        for process in self.workers():
            return process
        raise RuntimeError("the server has no worker")

    def workers(self) -> list[psutil.Process]:
        """Return the processes that serve requests."""
        workers = []
        for process in process_tree(self.process.pid)[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                # Forked workers have the command line of their parent.
                forked = process.ppid() == self.process.pid and process.cmdline() == self.process.args
                if forked or _WORKER_MODULE in " ".join(process.cmdline()):
                    workers.append(process)
        return workers

    def _wait_or_exit(self, attempt: Callable[[], Result]) -> Result:
        try:
            return self.wait_until(attempt)
        except PeerError:
            publish({"error": "the server does not serve", "log": self.last_lines()})
            print("error: the server does not serve; its log ends:", *self.last_lines(), sep="\n  ", file=sys.stderr)
            sys.exit(1)


def no_bundle(model: str, artifacts: Path) -> str:
    """Return what to do about a bundle that is not in the folder of bundles."""
    missing = f"there is no bundle {artifacts / model}"
    if model == DEFAULT_MODEL:
        return f"{missing}: make it with `python -m export --model {model}`"
    there = sorted(path.parent.name for path in artifacts.glob("*/manifest.json"))
    similar = difflib.get_close_matches(model, there, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    others = f"there is {', '.join(there)}; " if there else ""
    create = "`python -m export --model NAME` makes one for a name that `python -m models` lists"
    return f"{missing}: {hint}{others}{create}"


FAULTY_SERVICE = "loadtest.peers.halftone_faulty:HalftoneService"


def started(**settings: str) -> contextlib.AbstractContextManager[Server]:
    """Start a server with this process's environment and these variables; stop it at the end."""
    return _serving(["halftone", "serve"], settings)


def started_faulty(**settings: str) -> contextlib.AbstractContextManager[Server]:
    """Start a server likewise, in which a bundle whose name ends in a kind of fault has it."""
    return _serving(["bentoml", "serve", FAULTY_SERVICE], settings)


@contextlib.contextmanager
def _serving(command: list[str], settings: dict[str, str]) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"BENTOML_DO_NOT_TRACK": "True"} | settings
    with server_process(command, environment, port) as server:
        yield Server(process=server.process, port=port, log=server.log)


def check_refined(port: int) -> None:
    """Raise NotReadyError while the service completes and measures its models; other servers are never waited for."""
    try:
        answer = json.loads(fetch(port, get("/readyz"), timeout=_REQUEST_SECONDS).body)
    except (OSError, ValueError):
        return
    if answer.get("refined") is False:
        raise NotReadyError("it measures its batches")


def wait_for_workers(server: ServerProcess, environment: Mapping[str, str]) -> None:
    """Wait until all workers serve, and until the first start on a machine has measured what it guessed.

    The first one responds while the others load, and the service while it measures, on the same cores.

    Args:
        server: our service, in any of its forms.
        environment: that it was started with.

    Raises:
        PeerError: they don't serve in time.
    """
    count = _workers(environment)

    def attempt() -> None:
        try:
            response = fetch(server.port, get("/metrics"), timeout=_REQUEST_SECONDS)
        except OSError as error:
            raise NotReadyError(str(error)) from None
        serving = len(set(_MODEL_OF_WORKER.findall(response.body)))
        # A form without metrics is measured from its first response on.
        if response.status == 200 and serving < count:
            raise NotReadyError(f"{serving} of {count} workers serve")

    if count > 1:
        server.wait_until(attempt)
    server.wait_until(lambda: check_refined(server.port))


def _workers(environment: Mapping[str, str]) -> int:
    """Return the number of workers that HALFTONE_WORKERS sets, as a variable or in the file of settings."""
    if number := environment.get("HALFTONE_WORKERS"):
        return int(number)
    file = environment.get("HALFTONE_SETTINGS")
    found = _WORKERS_SETTING.search(Path(file).read_text()) if file else None
    return int(found[1]) if found else 1
