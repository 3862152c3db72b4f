"""Find the bundles and the version of Halftone in a Bento, which is served from any folder and never installed.

A Bento holds the packages with pyproject.toml and the folder of bundles next to them.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

VARIABLE = "HALFTONE_ARTIFACTS"
NAME = "halftone"


def find_bundles(source: Path = Path(__file__).parents[1]) -> None:
    """Use the folder of bundles next to the source, unless the environment names one or the current folder has one.

    Args:
        source: the folder that holds the package `serving`.
    """
    here, bundled = Path("artifacts"), source / "artifacts"
    # BentoML imports the service in the source folder of the Bento, and opens the bundles in another one.
    if not os.environ.get(VARIABLE) and bundled.is_dir() and (not here.is_dir() or here.samefile(bundled)):
        os.environ[VARIABLE] = str(bundled)


@cache
def version() -> str:
    """Return the version of the installed distribution, or else that in pyproject.toml next to the packages."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        project = Path(__file__).parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text())["project"]["version"])
