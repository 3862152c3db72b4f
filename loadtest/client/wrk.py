"""Closed-loop load generator that runs wrk (the Debian package)."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from loadtest.client.load import Cell, Load, Tally
from loadtest.reporting.cli import PeerError

_MARK = "RESULT "
_GRACE_SECONDS = 60


def installed() -> bool:
    """Return True if wrk is on the PATH."""
    return shutil.which("wrk") is not None


def run(load: Load) -> Cell:
    """Put the load on the server and count; the time is rounded up, because wrk takes whole seconds only.

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
        return _cell(load, json.loads(line.removeprefix(_MARK)), Path(folder))


def _prepare(folder: Path, load: Load) -> None:
    for number, request in enumerate(load.requests):
        (folder / str(number)).write_bytes(request)


def _command(folder: str, load: Load) -> list[str]:
    clients, seconds = str(load.clients), str(math.ceil(load.seconds))
    # One connection a thread: the script could not match responses with requests otherwise.
    script = str(files("loadtest.client") / "wrk.lua")
    options = ["-t", clients, "-c", clients, "-d", f"{seconds}s", "--timeout", "30s", "-s", script]
    arguments = [folder, load.answer.replace("\\", "%"), str(len(load.requests)), clients]
    return ["wrk", *options, f"http://127.0.0.1:{load.port}/", "--", *arguments]


def _cell(load: Load, result: dict[str, int], folder: Path) -> Cell:
    tally = Tally(errors=result["unanswered"])
    for path in folder.glob("answers-*"):
        for line in path.read_text().splitlines():
            position, status, index, taken = line.split()
            tally.count(int(status), int(index), float(taken) / 1e6, int(position), load)
    return tally.cell(load.clients, result["microseconds"] / 1e6)
