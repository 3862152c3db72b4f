"""Server processes on free ports of 127.0.0.1: start, wait for readiness, read memory, stop with all children."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import psutil

from loadtest.reporting.cli import PeerError

Result = TypeVar("Result")

ROOT = Path(__file__).parents[2]
START_SECONDS = 90
_STOP_SECONDS = 30
_POLL_SECONDS = 0.02
_LOG_LINES, _LOG_CHARACTERS = 5, 500
_MIB = 2**20


class NotReadyError(Exception):
    """The server does not serve yet; the message says what happened instead."""


@dataclass(frozen=True, kw_only=True)
class ServerProcess:
    """A started server, which leads its own process group."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]
    """Everything that it writes to stdout and stderr."""

    def wait_until(self, attempt: Callable[[], Result]) -> Result:
        """Call `attempt` until it raises no NotReadyError; return its result.

        Raises:
            PeerError: the process ended, or START_SECONDS have passed; the message quotes the log's last lines.
        """
        end = time.monotonic() + START_SECONDS
        while True:
            if self.process.poll() is not None:
                raise PeerError(f"ended with {self.process.returncode} before it served; {self._log_end()}")
            try:
                return attempt()
            except NotReadyError as error:
                if time.monotonic() > end:
                    raise PeerError(f"not ready in {START_SECONDS} s ({error}); {self._log_end()}") from None
            time.sleep(_POLL_SECONDS)

    def last_lines(self) -> list[str]:
        """Return the last lines of the log that are not empty."""
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().decode(errors="replace").splitlines()]
        return [line for line in lines if line][-_LOG_LINES:]

    def _log_end(self) -> str:
        return f"its log ends: {' | '.join(self.last_lines())[-_LOG_CHARACTERS:] or '(empty)'}"


@contextlib.contextmanager
def server_process(
    command: Sequence[str], environment: Mapping[str, str], port: int, *, folder: Path | None = None
) -> Iterator[ServerProcess]:
    """Start a server, and stop it and its children at the end.

    Args:
        command: program and arguments.
        environment: all variables.
        port: of 127.0.0.1, which the command names.
        folder: to start in; None: the current one.

    Raises:
        PeerError: the command can't be started.
    """
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
                cwd=folder,
            )
        except OSError as error:
            raise PeerError(f"not started: {error}") from None
        try:
            yield ServerProcess(process=process, port=port, log=log)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the process group, then kill the processes that are left."""
    family = process_tree(process.pid)
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
    finally:
        # Some servers start children in groups of their own. psutil compares start times, so that a process that got
        # a dead child's number is not killed.
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()


def free_port() -> int:
    """Return a port of 127.0.0.1 that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and its descendants; nothing if it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident_mib(processes: Sequence[psutil.Process]) -> float:
    """Return the resident memory of processes in MiB."""
    return _total(processes, lambda process: process.memory_info().rss) / _MIB


def unshared_mib(processes: Sequence[psutil.Process]) -> float:
    """Return the memory of processes in MiB that no other process shares."""
    return _total(processes, lambda process: process.memory_full_info().uss) / _MIB


def peak_mib(pid: int) -> float:
    """Return the peak resident memory in MiB of a process and its descendants, each process's own peak added up."""
    return _total(process_tree(pid), _peak) / _MIB


def share_mib(pid: int) -> float | None:
    """Return the proportional set size in MiB of a process and its descendants: a shared page counts once.

    Returns:
        None where the system doesn't tell, which is everywhere but on Linux.
    """
    if not psutil.LINUX:
        return None
    return _total(process_tree(pid), lambda process: process.memory_full_info().pss) / _MIB


def cpu_seconds(pid: int) -> float:
    """Return the processor time in seconds that a process and its descendants have used so far."""
    return _total(process_tree(pid), lambda process: sum(process.cpu_times()[:2]))


def _total(processes: Sequence[psutil.Process], read: Callable[[psutil.Process], float]) -> float:
    """Add up a figure of processes; a process that has ended counts as 0."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            total += read(process)
    return total


def _peak(process: psutil.Process) -> int:
    """Return the peak resident bytes as Linux records them; elsewhere the current resident bytes."""
    status = Path(f"/proc/{process.pid}/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return int(process.memory_info().rss)
