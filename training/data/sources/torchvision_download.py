"""Construction of torchvision's data sets from existing or downloaded files, and their class names as labels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from models.common.errors import HalftoneError
from models.common.text import controls

PREFIX = "torchvision:"
"""Prefix of `--data` for these sets."""


def cache_folder() -> Path:
    """Return the folder for downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halftone"


def class_names(classes: Any) -> tuple[str, ...]:
    """Return torchvision's classes as labels, which must be valid folder names for samples and exports.

    Raises:
        HalftoneError: a name contains a control character.
    """
    # Imagenette has several names for a class.
    names = (label[0] if isinstance(label, tuple) else label for label in classes)
    labels = tuple(str(name).replace("/", " or ") for name in names)
    if odd := next((label for label in labels if controls(label)), None):
        raise HalftoneError(f"the class {odd!r} has a control character or a line end in its name: rename it")
    return labels


def construct(name: str, root: Path, arguments: dict[str, Any], *, advice: str) -> Any:
    """Construct a data set from its files; download them only if they are missing.

    Args:
        name: of torchvision's class.
        root: folder of the files.
        arguments: of the constructor.
        advice: for the error message.

    Raises:
        HalftoneError: the files are missing and can't be downloaded.
    """
    import torchvision

    factory: Any = getattr(torchvision.datasets, name)
    try:
        return factory(str(root), download=False, **arguments)
    except (RuntimeError, FileNotFoundError):
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        return factory(str(root), download=True, **arguments)
    # Downloads fail in many ways: URLError, HTTPError, RuntimeError for a wrong checksum, OSError for a full disk.
    except Exception as error:
        raise HalftoneError(
            f"{name} is not in {root} and can't be downloaded ({type(error).__name__}: {str(error)[:120]}): {advice}, "
            f"or put its files there, or name their folder with {PREFIX}{name}@FOLDER"
        ) from None
