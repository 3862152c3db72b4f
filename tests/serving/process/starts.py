"""Servers that are expected to end without a request to stop, and the processes of a server."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import psutil
import pytest

from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.lifecycle.selection import check_bundle
from serving.settings import Settings
from tests.servers import ROOT, environment, free_port, kill, wait_until

END_SECONDS = 60


def command(port: int | str) -> list[str]:
    return [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1", "--port", str(port)]


@contextlib.contextmanager
def spawned(artifacts: Path, port: int | None = None, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a server; kill what is left of it when the block ends."""
    process = subprocess.Popen(
        command(port or free_port()),
        cwd=ROOT,
        env=environment(artifacts, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)
        process.communicate()


@contextlib.contextmanager
def starting(
    artifacts: Path, workers: int = 1, **settings: str
) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """Start a server with this number of workers, which have just begun to start when the block begins."""
    with spawned(artifacts, **settings) as process:
        wait_until(lambda: len(workers_of(process.pid)) == workers, "the workers were started")
        yield process, workers_of(process.pid)


def ended(artifacts: Path, port: int | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a server and wait for its end."""
    with spawned(artifacts, port, **settings) as process:
        stdout, stderr = process.communicate(timeout=END_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def refused(artifacts: Path, **settings: str) -> str:
    """Start a server that must not start; return its one line."""
    result = ended(artifacts, **settings)
    assert (result.returncode, result.stdout) == (2, ""), result.stdout + result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def refusal(artifacts: Path, **settings: str) -> str:
    """Return the error that ends a server with these settings before any worker starts, without starting it."""
    values = environment(artifacts, **settings)
    with mock.patch.dict(os.environ, values, clear=True), pytest.raises(HalftoneError) as error:
        _check(values)
    assert "\n" not in str(error.value)
    return str(error.value)


def _check(values: dict[str, str]) -> None:
    """Check what `serving.service` checks; it prints the error and exits."""
    settings = Settings.from_environment(values)
    for name in settings.models:
        check_bundle(name, open_bundle(name), settings)


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the workers of a supervisor; its other children, with which it examines the machine, are left out."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(pid)
        for child in supervisor.children():
            # A process may end between any two of these calls.
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                # A forked worker has the command line that was typed, and its parent's session until it has its work.
                forked = "serve" in child.cmdline() and os.getsid(child.pid) != os.getsid(pid)
                if forked or "_bentoml_impl.worker" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def kill_worker(process: psutil.Process) -> None:
    """Kill a worker that may have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
