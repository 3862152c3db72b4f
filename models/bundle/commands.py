"""Commands to print for a bundle: they work in the folder and with the bundle that the user has."""

from __future__ import annotations

import shlex
from pathlib import Path

from models.bundle.manifest import Manifest

CONFIGURATION = Path("bentofile.yaml")
SERVICE = "serving.service:HalftoneService"


def export_command(folder: Path, data: str) -> str:
    """Return the command that exports a trained bundle and proves it on the data that it was trained with.

    Args:
        folder: the bundle's folder.
        data: location of the data; the proof takes a folder only, and otherwise shows the sample photographs.
    """
    labelled = ["--data", data] if data and Path(data).is_dir() else []
    return in_folder(folder, shlex.join(["python", "-m", "export", "--model", folder.name, *labelled]))


def serve_command(folder: Path, manifest: Manifest) -> str:
    """Return the command that serves the bundle of a folder."""
    # Without this file in the current folder, BentoML has to be given the service.
    serve = "bentoml serve" if CONFIGURATION.is_file() else f"bentoml serve {SERVICE}"
    untrained = "" if manifest.trained else "HALFTONE_ALLOW_UNTRAINED=1 "
    return in_folder(folder, f"HALFTONE_MODEL={folder.name} {untrained}{serve}")


def in_folder(folder: Path, command: str) -> str:
    """Return a command about the bundle of a folder, with the folder of bundles if it is not the default one."""
    parent = folder.absolute().parent
    return command if parent.resolve() == Path("artifacts").resolve() else f"{_setting(parent)}{command}"


def without_place(text: str, bundles: Path) -> str:
    """Return a message without the place of the folder of bundles, for those who see the service from outside."""
    return text.replace(_setting(bundles.absolute()), "").replace(f"{bundles}/", "")


def _setting(bundles: Path) -> str:
    return f"HALFTONE_ARTIFACTS={shlex.quote(str(bundles))} "
