"""Locate and open bundles by model name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from models.bundle.bundle import Bundle
from models.bundle.manifest import FILE_NAME
from models.common.errors import HalftoneError

DEFAULT_MODEL = "efficientnet_lite0"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def artifacts() -> Path:
    """Return the folder of bundles: environment variable HALFTONE_ARTIFACTS, or `artifacts` in the current folder."""
    return Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")


def bundle_folder(model: str) -> Path:
    """Return the folder that belongs to a model's name; it need not exist.

    Raises:
        HalftoneError: the name contains other characters than letters, digits, `.`, `_` and `-`.
    """
    check_name(model)
    return artifacts() / model


def check_name(model: str) -> None:
    """Raise HalftoneError if a name contains other characters than letters, digits, `.`, `_` and `-`."""
    if not _NAME.fullmatch(model):
        raise HalftoneError(
            f"{model!r} is not a model's name: use letters, digits, '.', '_' and '-'; if the bundles are not in "
            "./artifacts, set HALFTONE_ARTIFACTS to their folder"
        )


def has_bundle(model: str) -> bool:
    """Return True if there is a bundle of that name."""
    return (bundle_folder(model) / FILE_NAME).exists()


def open_bundle(model: str) -> Bundle:
    """Open the bundle of that name.

    Raises:
        BundleError: the bundle does not exist or can't be used.
    """
    return Bundle.open(bundle_folder(model))
