"""Locate and open bundles by model name."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from models.bundle.bundle import Bundle
from models.bundle.errors import BundleMissingError, SymlinkError
from models.bundle.manifest import FILE_NAME
from models.common.errors import HalftoneError
from models.common.files import LockedError, check_length, locked
from models.spec import TIMM

DEFAULT_MODEL = "efficientnet_lite0"

MAX_NAME = 200
"""Limit on the characters of a name: file systems allow 255 bytes, also with the endings of temporary folders."""

RUN = "run.json"
"""File of an unfinished training with its settings."""

_MOST_SHOWN = 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def artifacts() -> Path:
    """Return the folder of bundles: environment variable HALFTONE_ARTIFACTS, or `artifacts` in the current folder.

    Raises:
        HalftoneError: the path is too long for a file system.
    """
    folder = Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")
    check_length(folder.absolute() / ("x" * MAX_NAME), "HALFTONE_ARTIFACTS")
    return folder


def bundle_folder(model: str) -> Path:
    """Return the folder that belongs to a model's name; it need not exist. That of `timm:NAME` is `timm-NAME`.

    Raises:
        HalftoneError: the name contains other characters than letters, digits, `.`, `_` and `-`, or is too long.
        SymlinkError: the folder is a link to a place outside the folder of bundles.
    """
    model = bundle_name(model)
    check_name(model)
    folder = artifacts() / model
    # A link within the folder of bundles is fine: `current` may be one to `v2`.
    if folder.is_symlink() and not folder.resolve().is_relative_to(artifacts().resolve()):
        raise SymlinkError(
            f"{folder} is a symbolic link that leads out of the folder of bundles: replace it with a copy, or set "
            "HALFTONE_ARTIFACTS to the folder that holds the bundle itself"
        )
    return folder


def bundle_name(model: str) -> str:
    """Return the name of the bundle of a model: the name itself, and `timm-NAME` for `timm:NAME`."""
    # A colon can't be part of a file's name everywhere, nor of an address in HTTP.
    return f"{TIMM.rstrip(':')}-{model.removeprefix(TIMM)}" if model.startswith(TIMM) else model


def check_name(model: str) -> None:
    """Raise HalftoneError if a name has other characters than letters, digits, `.`, `_` and `-`, or too many."""
    if len(model) > MAX_NAME:
        raise HalftoneError(
            f"{model[:40]!r}… is not a model's name: it has {len(model)} characters, use at most {MAX_NAME}"
        )
    if not _NAME.fullmatch(model):
        path = Path(model)
        if len(path.parts) > 1 and _NAME.fullmatch(path.name):
            elsewhere = path.parent.resolve() != artifacts().resolve()
            where = f", and set HALFTONE_ARTIFACTS={shlex.quote(str(path.parent))}" if elsewhere else ""
            raise HalftoneError(f"{model!r} is not a model's name but a path: write {path.name}{where}")
        raise HalftoneError(f"{model!r} is not a model's name: use letters, digits, '.', '_' and '-'")


def has_bundle(model: str) -> bool:
    """Return True if there is a bundle of that name."""
    return (bundle_folder(model) / FILE_NAME).exists()


@contextlib.contextmanager
def exporting(model: str) -> Iterator[None]:
    """Hold the lock of the exports of a bundle, which need not exist yet.

    Raises:
        HalftoneError: another process holds it.
    """
    folder = bundle_folder(model)
    try:
        with locked(folder.with_name(f".{folder.name}.lock")):
            yield
    except LockedError:
        raise HalftoneError(
            f"another export of {folder} is at work: wait until it ends, then repeat the command, which keeps what "
            "is there"
        ) from None


def open_bundle(model: str) -> Bundle:
    """Open the bundle of that name.

    Raises:
        BundleError: the bundle does not exist or can't be used.
    """
    folder = bundle_folder(model)
    try:
        return Bundle.open(folder)
    except BundleMissingError:
        raise BundleMissingError(f"there is no bundle {folder}: {_instead(model)}") from None


def suggestion(model: str) -> str:
    """Return what to type instead of the name of a bundle that is not there; empty if nothing is like it."""
    if (unfinished_training(bundle_folder(model)) / RUN).is_file():
        output = shlex.quote(str(bundle_folder(model)))
        return f"its training is not finished: `python -m training --output {output} --resume` goes on with it"
    similar = difflib.get_close_matches(model, bundles(), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(similar)}?" if similar else ""


def unfinished_training(folder: Path) -> Path:
    """Return the folder of a training that will write the bundle of this folder; it need not exist."""
    return folder.parent / f".{folder.name}.training"


def bundles() -> list[str]:
    """Return the names of all bundles."""
    return sorted(path.parent.name for path in artifacts().glob(f"*/{FILE_NAME}"))


def _instead(model: str) -> str:
    """Return what to do about a bundle that is not there."""
    if (artifacts() / FILE_NAME).exists():
        here = artifacts().resolve()
        return (
            f"{artifacts()} is a bundle itself, not a folder of bundles: set "
            f"HALFTONE_ARTIFACTS={shlex.quote(str(here.parent))} and name the model {here.name}"
        )
    create = (
        f"create it with `python -m export --model {model}`"
        if model == DEFAULT_MODEL or model.startswith(TIMM)
        else "`python -m export --model NAME` creates one for a name that `python -m models` lists"
    )
    there, hint = bundles(), suggestion(model)
    if not there:
        return hint or f"the folder holds none; {create}, or set HALFTONE_ARTIFACTS to the folder of the bundles"
    more = f" and {len(there) - _MOST_SHOWN} more" if len(there) > _MOST_SHOWN else ""
    first = f"{hint}{' ' if hint.endswith('?') else '; '}" if hint else ""
    return f"{first}there is {', '.join(there[:_MOST_SHOWN])}{more}; {create}"
