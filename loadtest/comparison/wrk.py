"""wrk (the Debian package) as the load generator."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from loadtest.comparison.errors import PeerError
from loadtest.comparison.load import Cell, Load

_MARK = "RESULT "
_GRACE_SECONDS = 60


def installed() -> bool:
    """Whether there is a wrk."""
    return shutil.which("wrk") is not None


def run(load: Load) -> Cell:
    """Put the load on the server and count; wrk knows whole seconds only, so the time is rounded up.

    Raises:
        PeerError: wrk failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder), load)
        try:
            result = subprocess.run(
                _command(folder, load),
                capture_output=True,
                text=True,
                check=False,
                timeout=load.seconds + _GRACE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"wrk did not end within {load.seconds + _GRACE_SECONDS:g} s") from None
    line = next((line for line in result.stdout.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise PeerError(f"wrk failed: {' '.join((result.stderr or result.stdout).split())[-300:]}")
    return _cell(load.clients, json.loads(line.removeprefix(_MARK)))


def _prepare(folder: Path, load: Load) -> None:
    for number, request in enumerate(load.requests, start=1):
        (folder / str(number)).write_bytes(request)
    (folder / "expected").write_text("".join(f"{index}\n" for index in load.expected))


def _command(folder: str, load: Load) -> list[str]:
    clients, seconds = str(load.clients), str(math.ceil(load.seconds))
    # One connection a thread, for only so can the script tell which picture an answer belongs to; where every picture
    # has the same answer, a single thread, which costs the servers less.
    threads = clients if len(set(load.expected)) > 1 else "1"
    script = str(files("loadtest.comparison") / "wrk.lua")
    options = ["-t", threads, "-c", clients, "-d", f"{seconds}s", "--timeout", "30s", "-s", script]
    return ["wrk", *options, f"http://127.0.0.1:{load.port}/", "--", folder, load.answer.replace("\\", "%")]


def _cell(clients: int, result: dict[str, float]) -> Cell:
    return Cell(
        clients=clients,
        seconds=result["microseconds"] / 1e6,
        requests=int(result["requests"]),
        errors=int(result["failed"]),
        wrong=int(result["wrong"]),
        p50_ms=result["p50"] / 1000,
        p99_ms=result["p99"] / 1000,
    )
