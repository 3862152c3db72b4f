"""Environments in which a program writes down what it looks up, connects to and opens."""

import os
from pathlib import Path

from tests.servers import ROOT

_HOOK = ROOT / "tests" / "serving" / "http" / "audit"
_LOCAL = ("127.0.0.1", "localhost", "'0.0.0.0'", "None", "b'127.0.0.1'", "family=1,")
_SWITCHES = {"CI", "NNCF_CI", "BENTOML_DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "HF_HOME"}


def audited(folder: Path) -> dict[str, str]:
    """Return the environment of a machine that sees the program for the first time; its HOME is in the folder."""
    (folder / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in _SWITCHES}
    path = os.pathsep.join([str(_HOOK), str(ROOT)])
    return kept | {"HOME": str(folder / "home"), "PYTHONPATH": path, "AUDIT_LOG": str(folder / "audit")}


def traces(environment: dict[str, str]) -> list[str]:
    """Return what left this machine, and the files in HOME but matplotlib's list of fonts."""
    events = Path(environment["AUDIT_LOG"]).read_text().splitlines()
    assert any(event.startswith("open ") for event in events)
    out = [event for event in events if event.startswith(("socket.", "http.", "urllib.", "ftplib."))]
    files = [
        str(path) for path in Path(environment["HOME"]).rglob("*") if path.is_file() and "matplotlib" not in path.parts
    ]
    return [event for event in out if not any(name in event for name in _LOCAL)] + files
