"""A server of one's own for the time of a measurement: `bentoml serve` on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

Result = TypeVar("Result")

POLL_SECONDS = 0.02
GIVE_UP_SECONDS = 60
STOP_SECONDS = 30
LOG_LINES = 5


class RefusedError(Exception):
    """The server will never answer this request otherwise; the message is its own."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running `bentoml serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]

    def classify(self, picture: bytes) -> dict[str, Any] | None:
        """The answer to one picture; None while the server is not ready.

        Raises:
            RefusedError: the server refuses the picture.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", "/classify", picture, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if 400 <= response.status < 500 and response.status != 429:
            raise RefusedError(json.loads(body)["error"]["message"])
        return dict(json.loads(body)) if response.status == 200 else None

    def until_ready(self) -> None:
        """Wait until all models are loaded; ends the program with the server's last words where they are not."""
        self._until(lambda: self._ready() or None)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=10) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def first_answer(self, picture: bytes) -> dict[str, Any]:
        """Ask until there is an answer; ends the program with the server's last words where there is none.

        Raises:
            RefusedError: the server refuses the picture.
        """
        return self._until(lambda: self.classify(picture))

    def _until(self, attempt: Callable[[], Result | None]) -> Result:
        end = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            result = attempt()
            if result is not None:
                return result
            time.sleep(POLL_SECONDS)
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        print("error: the server gave no answer; it said last:", *last, sep="\n  ", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def started(**settings: str) -> Iterator[Server]:
    """A server with this process's environment (`HALFTONE_MODEL` and so on) and these variables, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        environment = os.environ | {"BENTOML_DO_NOT_TRACK": "True"} | settings
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        try:
            yield Server(process=process, port=port, log=log)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # It may have ended by itself.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
