"""A new folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from models.common.errors import HalftoneError
from models.common.files import staged_folder


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` on success and is removed on an error.

    Raises:
        HalftoneError: the folder exists and is not empty.
    """
    taken = f"{folder} is not empty: remove it, or choose another place with --to"
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise HalftoneError(taken)
    with staged_folder(folder) as stage:
        yield stage
        try:
            stage.replace(folder)
        except OSError:
            # Another command has written there since.
            raise HalftoneError(taken) from None
