"""What is different in a Bento: it is served from any folder, and its bundles lie beside its source."""

# MERGED-DOC """Halftone's own version, also where it was not installed: a Bento holds its source next to pyproject.toml."""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

VARIABLE = "HALFTONE_ARTIFACTS"


def find_bundles(source: Path = Path(__file__).parents[1]) -> None:
    """Let the folder of bundles be the one beside the source, unless one is named or lies in the current folder.

    Args:
        source: the folder that holds the package `serving`.
    """
    here, beside = Path("artifacts"), source / "artifacts"
    # BentoML is in the Bento's source while it imports the service, and elsewhere when the bundles are opened.
    if not os.environ.get(VARIABLE) and beside.is_dir() and (not here.is_dir() or here.samefile(beside)):
        os.environ[VARIABLE] = str(beside)


NAME = "halftone"


@cache
def version() -> str:
    """As the installed distribution says, else as pyproject.toml beside the packages does."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])
