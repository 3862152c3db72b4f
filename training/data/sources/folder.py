"""Folders of class folders, either in `train/` and a held-out folder, or undivided and then split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.common.errors import HalftoneError
from models.common.text import controls, printable
from models.dataset import HELD_OUT, SUFFIXES
from training.data.pictures import Data, FilePictures
from training.data.sources.labels import check_distinct, folded
from training.data.split import stratified_split
from training.data.subsets import SelectedPictures

TRAIN = "train"

# Names of other tools for parts of the data, which must not be mistaken for classes.
LOOKALIKES = frozenset({"training", "valid", "dev", "testing", "eval", "evaluation", "holdout"})
PARTS = LOOKALIKES | {TRAIN, *HELD_OUT}

OTHER_PICTURES = frozenset({".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd"})


def load_folder(folder: Path, *, val_share: float, seed: int) -> Data:
    """Load the images of a folder.

    Links are followed. Hidden entries and files without the suffix of a JPEG, PNG or WebP file are ignored. The first
    of `val/`, `validation/` and `test/` that exists is held out; the other two are ignored.

    Args:
        folder: the folder.
        val_share: share of every class to hold out if there is no held-out folder.
        seed: of that split.

    Raises:
        HalftoneError: the folder can't be used; the message names the cause and the fix.
    """
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "does not exist"
        raise HalftoneError(f"--data {folder} {fault}: name a folder with one folder of pictures per class, or a .csv")
    names = {entry.name for entry in _entries(folder) if entry.is_dir()}
    held_out = next((name for name in HELD_OUT if name in names), None)
    _check_parts(folder, names, held_out)
    if TRAIN not in names and held_out is None:
        return _split(_read_classes(folder), folder, val_share, seed)
    train = _read_classes(folder / TRAIN)
    if held_out is None:
        return _split(train, folder / TRAIN, val_share, seed)
    return _two_parts(folder, train, _read_classes(folder / held_out, classes_needed=1), held_out)


@dataclass(kw_only=True)
class _Class:
    name: str
    paths: list[str] = field(default_factory=list)
    """Relative to the folder of classes."""


def _two_parts(folder: Path, train: list[_Class], val: list[_Class], held_out: str) -> Data:
    known, found = {item.name for item in train}, {item.name for item in val}
    unknown = sorted(found - known)
    if unknown:
        near = [name for name in sorted(known) if folded(name) == folded(unknown[0])]
        hint = f"is it {near[0]!r} in another spelling? " if near else ""
        raise HalftoneError(
            f"{folder / held_out} has the class {unknown[0]!r}, which {folder / TRAIN} does not have: {hint}use the "
            "same names for the class folders in both"
        )
    missing = sorted(known - found)
    return Data(
        train=_pictures(train, folder / TRAIN),
        val=_pictures(
            [next((v for v in val if v.name == t.name), _Class(name=t.name)) for t in train], folder / held_out
        ),
        description=f"folder {printable(folder.name)}: {TRAIN}/ and {held_out}/",
        own_split=True,
        warnings=(f"{held_out}/ has no pictures of {', '.join(missing)}, so they can't be validated",)
        if missing
        else (),
    )


def _split(classes: list[_Class], folder: Path, val_share: float, seed: int) -> Data:
    everything = _pictures(classes, folder)
    train, val = stratified_split(everything, val_share=val_share, seed=seed)
    single = [item.name for item in classes if len(item.paths) == 1]
    return Data(
        train=SelectedPictures(everything, train),
        val=SelectedPictures(everything, val),
        description=f"folder {printable(folder.name)}: {val_share:.0%} of every class held out (seed {seed})",
        own_split=False,
        warnings=(f"only one picture of {', '.join(single)}: none is held out",) if single else (),
    )


def _pictures(classes: list[_Class], root: Path) -> FilePictures:
    return FilePictures(
        labels=tuple(item.name for item in classes),
        targets=np.repeat(np.arange(len(classes)), [len(item.paths) for item in classes]),
        root=root,
        paths=[path for item in classes for path in item.paths],
    )


def _check_parts(folder: Path, names: set[str], held_out: str | None) -> None:
    """Refuse parts with unknown names, which would be ignored or mistaken for classes."""
    parts = sorted(name for name in names if folded(name) in PARTS)
    if TRAIN in names:
        if held_out is None and parts != [TRAIN]:
            other = next(name for name in parts if name != TRAIN)
            raise HalftoneError(
                f"{folder} has {TRAIN}/ and {other}/, which is not a name for held-out pictures: rename it to val"
            )
    elif parts and len(parts) == len(names) and not set(parts) <= set(HELD_OUT):
        raise HalftoneError(
            f"{folder} has {' and '.join(f'{name}/' for name in parts)}, which look like parts of the data rather than "
            f"classes: rename the training part to {TRAIN} and the validation part to val, in lower case"
        )
    elif held_out is not None:
        raise HalftoneError(
            f"{folder} has {held_out}/ but no {TRAIN}/: put the training pictures into {TRAIN}/, by class"
        )


def _read_classes(root: Path, *, classes_needed: int = 2) -> list[_Class]:
    entries = _entries(root)
    folders = [entry.name for entry in entries if entry.is_dir()]
    if not folders:
        raise HalftoneError(_no_classes(root, entries))
    _check_names(root, folders)
    classes = [_Class(name=name, paths=sorted(_walk(root, name, seen=()))) for name in folders]
    for item in classes:
        if not item.paths:
            raise HalftoneError(_empty_class(root / item.name))
    if len(classes) < classes_needed:
        inner = " or, if its folders are the classes, name it with --data" if _has_folders(root / folders[0]) else ""
        raise HalftoneError(f"{root} has only one class, {folders[0]!r}: add a folder for each other class{inner}")
    return classes


def _check_names(root: Path, folders: list[str]) -> None:
    for name in folders:
        if name != os.fsencode(name).decode(errors="backslashreplace"):
            raise HalftoneError(f"a class folder in {root} has a name that is not UTF-8 text: rename it")
        if controls(name):
            raise HalftoneError(
                f"the class folder {name!r} in {root} has a control character or a line end in its name: rename it"
            )
    check_distinct(folders, where=f"the folder {root}")


def _walk(root: Path, below: str, *, seen: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the paths of the images below `root / below`, relative to `root`."""
    folder = root / below
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in seen:
        raise HalftoneError(f"{folder} is a link to one of its parent folders, an endless loop: remove the link")
    for entry in _entries(folder):
        path = f"{below}/{entry.name}"
        if entry.is_dir():
            yield from _walk(root, path, seen=(*seen, place))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            yield path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of the folder that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise HalftoneError(
            f"the folder {folder} can't be read ({error.strerror}): allow it with `chmod u+rx`"
        ) from None


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in _entries(folder))


def _no_classes(root: Path, entries: list[os.DirEntry[str]]) -> str:
    loose = sum(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries)
    if loose:
        return (
            f"{root} has {loose} pictures but no class folders: put the pictures into one folder per class, or list "
            "them in a CSV file with the columns path,label"
        )
    return f"{root} has no class folders: it must contain one folder of JPEG, PNG or WebP files per class"


def _empty_class(folder: Path) -> str:
    others = Counter(path.suffix.lower() for path in folder.rglob("*") if path.suffix.lower() in OTHER_PICTURES)
    if others:
        suffix, count = others.most_common(1)[0]
        return f"the class folder {folder} has {count} {suffix} files, which are not read: convert them to JPEG or PNG"
    return f"the class folder {folder} has no pictures: add JPEG, PNG or WebP files, or remove the folder"
