"""A peer's process: started on a free port of 127.0.0.1, asked until it answers, weighed, ended with its children."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from loadtest.client.encoding import request
from loadtest.client.load import class_index
from loadtest.reporting.cli import PeerError
from loadtest.servers.peer import Peer

ROOT = Path(__file__).parents[2]
START_SECONDS = 90
_STOP_SECONDS = 15
_POLL_SECONDS = 0.02
_LOG_LINES = 3
_MIB = 2**20
_SERVES = b"halftone_model_info{"
_WORKERS = re.compile(r"^HALFTONE_WORKERS=(\d+)$", re.MULTILINE)
_WORKER = re.compile(rb'worker="([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    peer: Peer
    port: int
    pid: int
    cold_start: float
    """Seconds from its start to its first answer with a class."""

    def peak_mib(self) -> float:
        """Peak resident memory of it and its children, each process's own peak added up, in MiB."""
        return sum(map(_peak, _tree(self.pid))) / _MIB


def expand(peer: Peer, python: Path, port: int, variant: str) -> tuple[list[str], dict[str, str]]:
    """The command, and the whole environment it is to be started with."""
    known = {
        "python": str(python),
        "bin": str(python.parent),
        "port": str(port),
        "cores": str(usable_cores()),
        "variant": variant,
    }
    settings = {name: value.format(**known) for name, value in peer.settings.items()}
    return [part.format(**known) for part in peer.command], _environment(settings)


def usable_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    # A program installed beside another interpreter must not find that one's packages or environment.
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "VIRTUAL_ENV"}}
    fixed = {"PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}
    return {**inherited, **fixed, **settings}


@contextlib.contextmanager
def running(peer: Peer, python: Path, picture: bytes, variant: str) -> Iterator[Running]:
    """The peer's server, answering; stopped at the end.

    Raises:
        PeerError: it ended or gave no answer in time, with its last words; or not all of its workers served in time.
    """
    port = free_port()
    command, environment = expand(peer, python, port, variant)
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = _start(command, environment, log)
        try:
            _wait_for_answer(peer, process, port, picture, log)
            cold_start = time.perf_counter() - start
            if peer.ours:
                _wait_for_workers(port, _workers(environment))
            yield Running(peer=peer, port=port, pid=process.pid, cold_start=cold_start)
        finally:
            _stop(process)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(command: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
            cwd=ROOT,
        )
    except OSError as error:
        raise PeerError(f"not started: {error}") from None


def _wait_for_answer(peer: Peer, process: subprocess.Popen[bytes], port: int, picture: bytes, log: IO[bytes]) -> None:
    message = request(peer.wire, peer.target, picture, port)
    end = time.monotonic() + START_SECONDS
    said = "no connection"
    while time.monotonic() < end:
        if process.poll() is not None:
            raise PeerError(f"ended with {process.returncode} instead of answering; it said: {_last_words(log)}")
        status, body = _ask(message, port)
        if status == 200 and class_index(peer.answer, body) is not None:
            return
        said = f"{status} {body[:200].decode(errors='replace')}" if status else said
        time.sleep(_POLL_SECONDS)
    raise PeerError(f"no right answer within {START_SECONDS} s ({said}); it said: {_last_words(log)}")


def _workers(environment: Mapping[str, str]) -> int:
    """How many our service is told to have, by a variable or by its file of them."""
    if given := environment.get("HALFTONE_WORKERS"):
        return int(given)
    file = environment.get("HALFTONE_SETTINGS")
    found = _WORKERS.search(Path(file).read_text()) if file else None
    return int(found[1]) if found else 1


def _wait_for_workers(port: int, count: int) -> None:
    """Wait until all workers of our service serve: the first one answers while the others load, on the same cores.

    Raises:
        PeerError: they don't in time.
    """
    if count == 1:
        return
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        status, metrics = _ask(f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode(), port)
        serving = {_WORKER.search(line) for line in metrics.splitlines() if line.startswith(_SERVES)}
        if status not in (0, 200) or len({found[1] for found in serving if found}) >= count:
            # Who keeps the metrics to himself is measured from the first answer on.
            return
        time.sleep(_POLL_SECONDS)
    raise PeerError(f"not all of its {count} workers served within {START_SECONDS} s")


def _ask(message: bytes, port: int) -> tuple[int, bytes]:
    """Status and body of the answer to a whole request; status 0 where there was none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(message)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


def ask(running_: Running, message: bytes) -> bytes:
    """The body of one answer.

    Raises:
        PeerError: it was not 200.
    """
    status, body = _ask(message, running_.port)
    if status != 200:
        raise PeerError(f"answered {status} {body[:200].decode(errors='replace')}")
    return body


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_LOG_LINES:])[-500:] or "nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then end what is left of its processes."""
    family = _tree(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_STOP_SECONDS)
    # Some servers start children in groups of their own; psutil compares start times, so that a process that got a
    # dead child's number is not touched.
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _peak(process: psutil.Process) -> int:
    """Peak resident bytes as Linux records them; elsewhere the resident bytes of now."""
    try:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return int(process.memory_info().rss)
    except (OSError, psutil.NoSuchProcess):
        return 0
