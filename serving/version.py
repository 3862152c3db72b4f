"""Halftone's own version, also where it was not installed: a Bento holds its source next to pyproject.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

NAME = "halftone"


@cache
def version() -> str:
    """As the installed distribution says, else as pyproject.toml beside the packages does."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])
