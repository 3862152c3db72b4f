"""Bundles that take long to make, kept in `.pytest_cache` for every process and every later run of the same sources."""

import functools
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from models.common.host import cores
from tests.servers import ROOT

FOLDER = ROOT / ".pytest_cache"
PREFIX = "bundles-"
KEEP_SECONDS = 24 * 3600
"""How long bundles of other sources stay after their last use: another run may still read them."""


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` has filled, in this process, in another one or in an earlier run.

    Nothing of it may be changed: copy it first. A folder is there whole or not at all.

    Args:
        name: tells it from others.
        make: fills an empty folder.
    """
    home = _home()
    finished = home / name
    with FileLock(home / f"{name}.lock"):
        if not finished.exists():
            with tempfile.TemporaryDirectory(dir=home) as temporary:
                made = Path(temporary) / name
                made.mkdir()
                make(made)
                made.rename(finished)
    return finished


def fingerprint(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file: the same before and after tests that only read."""
    files = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (stat.st_size, stat.st_mtime_ns) for path, stat in files}


@functools.cache
def _home() -> Path:
    """The folder for the sources as they are; those of other sources are removed a day after their last use."""
    home = FOLDER / f"{PREFIX}{_digest()}"
    home.mkdir(parents=True, exist_ok=True)
    home.touch()
    for other in FOLDER.glob(f"{PREFIX}*"):
        if other.stat().st_mtime < time.time() - KEEP_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    return home


def _digest() -> str:
    """Hash everything that decides what is in a bundle: code, sample pictures, libraries, how tests make one, cores."""
    files = [ROOT / "constraints.txt", ROOT / "pyproject.toml", *(ROOT / "tests" / "export").glob("*.py")]
    files += (path for package in ("models", "export") for path in (ROOT / package).rglob("*") if path.is_file())
    # Speeds are measured again on another number of cores, which each process of a parallel run has.
    digest = hashlib.sha256(f"{sys.version} {cores()}".encode())
    for path in sorted(files):
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
