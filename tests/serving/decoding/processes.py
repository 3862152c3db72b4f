"""The processes of a decoding pool, and scripts in their place."""

import stat
from pathlib import Path

import psutil

from models.spec import InputSpec
from serving.decoding.pool import Decoders
from tests.servers import PHOTOS, alive, children_with, family_of

SPEC = InputSpec(size=224)
CAT = (PHOTOS / "cat.jpg").read_bytes()


def pids(pool: Decoders) -> list[int]:
    """Return the process ids of a pool."""
    return [decoder._process.pid for decoder in pool._decoders if decoder._process is not None]


def workers_of(pid: int) -> list[psutil.Process]:
    """Return the decoding processes that a service has started."""
    return children_with(pid, "serving.decoding.worker")


def gone(pids: list[int]) -> bool:
    """Return True if these processes end within 20 s."""
    return alive([process for pid in pids for process in family_of(pid)[:1]], seconds=20) == []


def program(folder: Path, text: str) -> str:
    """Write a shell script to be started in place of Python, and return its path."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)
