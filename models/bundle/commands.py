"""Commands to print for a bundle: they work in the folder and with the bundle that the user has."""

from __future__ import annotations

import shlex
from pathlib import Path

from models.bundle.bundle import Bundle

CONFIGURATION = Path("bentofile.yaml")
SERVICE = "serving.service:HalftoneService"


def export_command(folder: Path, data: str) -> str:
    """Return the command that exports a trained bundle and proves it on the data that it was trained with.

    Args:
        folder: the bundle's folder.
        data: location of the data; the proof takes a folder only, and otherwise shows the sample photographs.
    """
    labelled = ["--data", data] if data and Path(data).is_dir() else []
    return _in(folder, shlex.join(["python", "-m", "export", "--model", folder.name, *labelled]))


def serve_command(bundle: Bundle) -> str:
    """Return the command that serves a bundle."""
    # Without this file in the current folder, BentoML has to be given the service.
    serve = "bentoml serve" if CONFIGURATION.is_file() else f"bentoml serve {SERVICE}"
    untrained = "" if bundle.manifest.trained else "HALFTONE_ALLOW_UNTRAINED=1 "
    return _in(bundle.folder, f"HALFTONE_MODEL={bundle.folder.name} {untrained}{serve}")


def _in(folder: Path, command: str) -> str:
    """Return the command, with the folder of bundles if it is not the default one."""
    parent = folder.absolute().parent
    if parent.resolve() == Path("artifacts").resolve():
        return command
    return f"HALFTONE_ARTIFACTS={shlex.quote(str(parent))} {command}"
