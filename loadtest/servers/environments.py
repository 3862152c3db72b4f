"""Virtual environments of the peers, built from pinned requirements, kept, and rebuilt if the requirements change."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from loadtest.reporting.cli import PeerError
from loadtest.servers.peer import Peer

DEFAULT_FOLDER = Path("~/.cache/halftone/peers")
_INSTALL_SECONDS = 900
_MARK = "installed"


def interpreter(peer: Peer, folder: Path, say: Callable[[str], None]) -> Path:
    """Return the Python that the peer runs with, and install its packages if they are missing.

    Args:
        peer: the server.
        folder: of the environments.
        say: prints that an installation starts.

    Raises:
        PeerError: the environment can't be built.
    """
    if not peer.requirements:
        # Not resolved: Python finds its environment by the link in the environment's folder.
        return Path(sys.executable)
    target = folder.expanduser() / peer.requirements
    fingerprint = _fingerprint(peer)
    mark = target / _MARK
    if not mark.exists() or mark.read_text() != fingerprint:
        say(f"installing {peer.requirements} into {target} (once)")
        _build(peer, target)
        mark.write_text(fingerprint)
    return target / "bin" / "python"


def _requirements(name: str) -> Path:
    return Path(str(files("loadtest.peers") / "requirements" / f"{name}.txt"))


def _fingerprint(peer: Peer) -> str:
    content = b"".join(_requirements(name).read_bytes() for name in ("base", peer.requirements))
    version = ".".join(map(str, sys.version_info[:3]))
    return hashlib.sha256(content + (peer.python or version).encode()).hexdigest()


def _build(peer: Peer, target: Path) -> None:
    python = peer.python or sys.executable
    if not Path(python).exists():
        raise PeerError(f"it needs the interpreter {python}, which does not exist")
    if target.exists():
        # Only a virtual environment is removed.
        if not (target / "pyvenv.cfg").exists():
            raise PeerError(f"{target.name} in --peers-folder is no virtual environment: choose another folder")
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _run([python, "-m", "venv", str(target)])
    # Isolated, so that pip doesn't take packages on the PYTHONPATH for those of the environment.
    pip = [str(target / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--requirement", str(_requirements(peer.requirements))])


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise PeerError(f"not installed within {_INSTALL_SECONDS} s: {' '.join(command[1:4])}") from None
    if result.returncode != 0:
        reason = (result.stderr or result.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise PeerError(f"not installed: {reason[0]}")
