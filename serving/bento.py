"""What is different in a Bento: it is served from any folder, and its bundles lie beside its source."""

from __future__ import annotations

import os
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
