"""Folders of class folders, either in `train/` and a held-out folder, or undivided and then split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from models.common.errors import HalftoneError
from models.common.text import controls, printable
from models.dataset import Part, find_parts, is_picture, kind_of_file, part_of
from training.data.pictures import CHOSEN_ON_TEST, TEST_LEFT_ALONE, Data, FilePictures
from training.data.sources.labels import check_distinct, folded
from training.data.split import Shares, divided
from training.data.subsets import SelectedPictures

FEW = 5
"""Number of left out files that a warning names."""

PART_LIKE = frozenset({"eval", "evaluation", "holdout", "held_out", "held-out"})
"""Names that may mean a part, but not which."""


def load_folder(folder: Path, shares: Shares, *, for_training: bool = True) -> Data:
    """Load the images of a folder.

    Links are followed, and hidden entries are ignored. An image is recognised by its suffix, or else by its content;
    other files are left out and named in a warning. The validation part is held out (`models.dataset.PART_NAMES`), and
    without one the test part is; beside a validation part, the test part chooses nothing.

    Args:
        folder: the folder.
        shares: of the parts if there is no held-out folder.
        for_training: as for `load_data`.

    Raises:
        HalftoneError: the folder can't be used; the message names the cause and the fix.
    """
    if not folder.is_dir():
        fault = "is a file" if folder.exists() else "does not exist"
        raise HalftoneError(
            f"--data {folder} {fault}: name a folder with one folder of pictures per class, or a .csv or .tsv file"
        )
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    parts = find_parts(folder, (name for name in names if part_of(name) and _has_folders(folder / name)))
    if "train" not in parts:
        if parts and not for_training and all(part_of(name) for name in names):
            return _held_out(folder, parts)
        _check_no_parts(folder, parts, for_training=for_training)
        return _split(_read_classes(folder), folder, shares, for_training=for_training)
    empty = find_parts(folder, names)
    if "val" in empty and "val" not in parts:
        name = empty["val"]
        raise HalftoneError(f"{folder / name} has no class folders: put its pictures into one folder per class")
    unused = tuple(_unused(folder, names, parts))
    train = _read_classes(folder / parts["train"])
    held_out = parts.get("val") or parts.get("test")
    if held_out is None:
        _check_no_lookalike(folder, names, parts["train"])
        data = _split(train, folder / parts["train"], shares, for_training=for_training)
    else:
        data = _divided(folder, train, parts, held_out)
    return replace(data, warnings=(*data.warnings, *unused))


@dataclass(kw_only=True)
class _Class:
    name: str
    paths: list[str] = field(default_factory=list)
    """Relative to the folder of classes."""

    others: list[str] = field(default_factory=list)
    """Files that are left out, likewise."""


def _divided(folder: Path, train: list[_Class], parts: Mapping[Part, str], held_out: str) -> Data:
    val = _read_classes(folder / held_out, classes_needed=1)
    _check_known(folder, train, val, parts["train"], held_out)
    missing = sorted({item.name for item in train} - {item.name for item in val})
    warnings = _left_out(train, folder / parts["train"], parts["train"]) + _left_out(val, folder / held_out, held_out)
    if missing:
        warnings += (f"{held_out}/ has no pictures of {', '.join(missing)}, so they can't be validated",)
    test = None
    if held_out == parts.get("test"):
        warnings += (
            CHOSEN_ON_TEST.format(test=f"{held_out}/", fix=f"move some pictures of {parts['train']}/ to val/"),
        )
    elif "test" in parts:
        test, why = _test_part(folder, train, parts["test"])
        warnings += (why,)
    return Data(
        train=_pictures(train, folder / parts["train"]),
        val=_matching(train, val, folder / held_out),
        test=test,
        description=f"folder {printable(folder.name)}: {parts['train']}/ and {held_out}/",
        own_split=True,
        warnings=warnings,
    )


def _held_out(folder: Path, parts: Mapping[Part, str]) -> Data:
    """Return the validation and test parts of a folder without a training part."""
    read = {part: _read_classes(folder / name, classes_needed=1) for part, name in parts.items()}
    by_name = {item.name: item for classes in read.values() for item in classes}
    classes = [by_name[name] for name in sorted(by_name)]
    pictures = {part: _matching(classes, found, folder / parts[part]) for part, found in read.items()}
    nothing = SelectedPictures(next(iter(pictures.values())), np.empty(0, dtype=np.int64))
    return Data(
        train=nothing,
        val=pictures.get("val", nothing),
        test=pictures.get("test"),
        description=f"folder {printable(folder.name)}: {' and '.join(f'{name}/' for name in parts.values())}",
        own_split=True,
        warnings=tuple(text for part, name in parts.items() for text in _left_out(read[part], folder / name, name)),
    )


def _test_part(folder: Path, train: list[_Class], name: str) -> tuple[FilePictures | None, str]:
    """Return the test part with a remark for the user; None if its classes are not those of training."""
    test = _read_classes(folder / name, classes_needed=1)
    unknown = sorted({item.name for item in test} - {item.name for item in train})
    if unknown:
        return None, f"{name}/ is left alone, and can't be evaluated on: training has no class {unknown[0]!r}"
    return _matching(train, test, folder / name), TEST_LEFT_ALONE.format(test=f"{name}/")


def _check_known(folder: Path, train: list[_Class], val: list[_Class], trained: str, held_out: str) -> None:
    known = {item.name for item in train}
    unknown = sorted({item.name for item in val} - known)
    if unknown:
        near = [name for name in sorted(known) if folded(name) == folded(unknown[0])]
        hint = f"is it {near[0]!r} in another spelling? " if near else ""
        raise HalftoneError(
            f"{folder / held_out} has the class {unknown[0]!r}, which {folder / trained} does not have: {hint}use the "
            "same names for the class folders in both"
        )


def _matching(train: list[_Class], part: list[_Class], root: Path) -> FilePictures:
    """Return the images of a part with the classes of the training part."""
    by_name = {item.name: item for item in part}
    return _pictures([by_name.get(item.name, _Class(name=item.name)) for item in train], root)


def _split(classes: list[_Class], folder: Path, shares: Shares, *, for_training: bool) -> Data:
    single = [item.name for item in classes if len(item.paths) == 1]
    return divided(
        _pictures(classes, folder),
        f"folder {printable(folder.name)}",
        shares,
        for_training=for_training,
        warnings=(
            *_left_out(classes, folder, ""),
            *((f"only one picture of {', '.join(single)}: none is held out",) if single and for_training else ()),
        ),
    )


def _left_out(classes: list[_Class], root: Path, below: str) -> tuple[str, ...]:
    """Return a warning that counts the files that are no images to read, and names the first with their formats."""
    others = [path for item in classes for path in item.others]
    if not others:
        return ()
    some = ", ".join(f"{PurePosixPath(below, path)} ({kind_of_file(root / path)})" for path in others[:FEW])
    more = f" and {len(others) - FEW} more" if len(others) > FEW else ""
    return (f"{len(others)} files are left out because they are not JPEG, PNG or WebP: {some}{more}",)


def _unused(folder: Path, names: list[str], parts: Mapping[Part, str]) -> Iterator[str]:
    for name in sorted(set(names) - set(parts.values())):
        if part_of(name) == "test" and not _has_folders(folder / name):
            yield f"{name}/ has no class folders, so it is ignored"
        elif folded(name) not in PART_LIKE or len(parts) > 1:
            yield f"{name}/ is ignored: it is none of the parts train, val and test"


def _pictures(classes: list[_Class], root: Path) -> FilePictures:
    return FilePictures(
        labels=tuple(item.name for item in classes),
        targets=np.repeat(np.arange(len(classes)), [len(item.paths) for item in classes]),
        root=root,
        paths=[path for item in classes for path in item.paths],
    )


def _check_no_lookalike(folder: Path, names: list[str], trained: str) -> None:
    """Refuse a folder that may hold the validation part under an unknown name."""
    if other := next((name for name in names if folded(name) in PART_LIKE), None):
        raise HalftoneError(
            f"{folder} has {trained}/ and {other}/, which is not a name for held-out pictures: rename it to val"
        )


def _check_no_parts(folder: Path, parts: Mapping[Part, str], *, for_training: bool) -> None:
    """Refuse held-out parts without a training part: they would be mistaken for classes."""
    if parts:
        found = next(iter(parts.values()))
        fix = "put the training pictures into train/, by class"
        if not for_training:
            fix = f"name {folder / found} with --data to evaluate on it, or {fix}"
        raise HalftoneError(f"{folder} has {found}/ but no train/: {fix}")


def _read_classes(root: Path, *, classes_needed: int = 2) -> list[_Class]:
    entries = _entries(root)
    folders = [entry.name for entry in entries if entry.is_dir()]
    if not folders:
        raise HalftoneError(_no_classes(root, entries))
    _check_names(root, folders)
    classes = [_read_class(root, name) for name in folders]
    for item in classes:
        if not item.paths:
            raise HalftoneError(_empty_class(root, item))
    if len(classes) < classes_needed:
        inner = " or, if its folders are the classes, name it with --data" if _has_folders(root / folders[0]) else ""
        raise HalftoneError(f"{root} has only one class, {folders[0]!r}: add a folder for each other class{inner}")
    return classes


def _read_class(root: Path, name: str) -> _Class:
    files = sorted(_walk(root, name, seen=()))
    pictures = [path for path in files if is_picture(root / path)]
    return _Class(name=name, paths=pictures, others=sorted(set(files) - set(pictures)))


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
    """Yield the paths of the files below `root / below`, relative to `root`."""
    folder = root / below
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in seen:
        raise HalftoneError(f"{folder} is a link to one of its parent folders, an endless loop: remove the link")
    for entry in _entries(folder):
        path = f"{below}/{entry.name}"
        if entry.is_dir():
            yield from _walk(root, path, seen=(*seen, place))
        elif entry.is_file():
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
    loose = sum(entry.is_file() and is_picture(Path(entry.path)) for entry in entries)
    if loose:
        return (
            f"{root} has {loose} pictures but no class folders: put the pictures into one folder per class, or list "
            "them in a CSV file with the columns path,label"
        )
    return f"{root} has no class folders: it must contain one folder of JPEG, PNG or WebP files per class"


def _empty_class(root: Path, item: _Class) -> str:
    kinds = Counter(kind for path in item.others if (kind := kind_of_file(root / path)) != "no picture")
    if kinds:
        kind, count = kinds.most_common(1)[0]
        return f"the class folder {root / item.name} has {count} {kind} files, which are not read: convert them to JPEG"
    return f"the class folder {root / item.name} has no pictures: add JPEG, PNG or WebP files, or remove the folder"
