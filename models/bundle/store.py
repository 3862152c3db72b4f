"""Where bundles live and what `--model NAME` means."""

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
    """The folder of bundles: the environment variable HALFTONE_ARTIFACTS, or `artifacts` in the current folder."""
    return Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")


def bundle_folder(model: str) -> Path:
    """The folder that belongs to a model's name, whether there is a bundle in it or not.

    Raises:
        HalftoneError: the name holds anything but letters, digits, `.`, `_` and `-`.
    """
    check_name(model)
    return artifacts() / model


def check_name(model: str) -> None:
    """Raise HalftoneError where a name holds anything but letters, digits, `.`, `_` and `-`."""
    if not _NAME.fullmatch(model):
        raise HalftoneError(
            f"{model!r} is not a model's name: use letters, digits, '.', '_' and '-', and name the folder of bundles "
            "with HALFTONE_ARTIFACTS if it is another than ./artifacts"
        )


def has_bundle(model: str) -> bool:
    """Whether there is a bundle of that name."""
    return (bundle_folder(model) / FILE_NAME).exists()


def open_bundle(model: str) -> Bundle:
    """The bundle of that name.

    Raises:
        BundleError: there is none, or it can't be used.
    """
    return Bundle.open(bundle_folder(model))
