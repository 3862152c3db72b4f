"""CSV files of labelled images: columns `path` and `label`, optionally `split` (train or val)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.errors import HalftoneError
from models.common.text import printable
from models.dataset import HELD_OUT
from training.data.pictures import Data, FilePictures
from training.data.sources.labels import check_distinct, fault_as_folder
from training.data.split import stratified_split
from training.data.subsets import SelectedPictures

COLUMNS = "path,label or path,label,split"


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    path: str
    label: str
    split: str


def load_table(file: Path, *, val_share: float, seed: int) -> Data:
    """Load the images listed in a CSV file.

    Paths are relative to the file's folder, or absolute. Every label is a class; classes are sorted by name. The first
    of `val`, `validation` and `test` that occurs in the column `split` is held out; rows of the other two are ignored.

    Args:
        file: UTF-8 text with a header line; the separator is a comma, semicolon or tab.
        val_share: share of every class to hold out if there is no column `split`.
        seed: of that split.

    Raises:
        HalftoneError: the file can't be used; the message names the line and the fix.
    """
    rows = _without_repeats(file, _read(file))
    labels = tuple(sorted({row.label for row in rows}))
    if len(labels) < 2:
        raise HalftoneError(f"{file} has only one class, {labels[0]!r}: add rows of another label")
    check_distinct(labels, where=str(file))
    _check_labels(file, rows)
    _check_files(file, rows)
    everything = FilePictures(
        labels=labels,
        targets=np.array([labels.index(row.label) for row in rows], dtype=np.int64),
        root=file.parent,
        paths=[row.path for row in rows],
    )
    if not any(row.split for row in rows):
        train, val = stratified_split(everything, val_share=val_share, seed=seed)
        split = f"{val_share:.0%} of every class held out (seed {seed})"
    else:
        train, val = _by_column(file, rows, everything)
        split = "split by its column"
    return Data(
        train=SelectedPictures(everything, train),
        val=SelectedPictures(everything, val),
        description=f"table {printable(file.name)}: {split}",
        own_split=any(row.split for row in rows),
    )


def _read(file: Path) -> list[_Row]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise HalftoneError(f"--data {file} can't be read ({error.strerror}): name a CSV file with {COLUMNS}") from None
    except UnicodeDecodeError:
        raise HalftoneError(f"{file} is not UTF-8 text: save it as CSV UTF-8") from None
    # Lines end as in the csv module, not at every line separator of Unicode.
    head = io.StringIO(text, newline="").readline().rstrip("\r\n")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in head), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = list(_rows(file, head, reader))
    except csv.Error as error:
        raise HalftoneError(
            f"{file}, line {reader.reader.line_num}: this is not CSV ({error}): look for an unmatched quotation "
            "mark, here or above"
        ) from None
    if not rows:
        raise HalftoneError(f"{file} has a header but no rows: list one picture per line")
    return rows


def _rows(file: Path, head: str, reader: csv.DictReader[str]) -> Iterator[_Row]:
    columns = {str(name).strip().lower(): name for name in reader.fieldnames or ()}
    if not {"path", "label"} <= columns.keys():
        raise HalftoneError(f"{file} starts with {head[:80]!r}, but its first line must name the columns, {COLUMNS}")
    for values in reader:
        yield _row(file, reader.line_num, values, columns)


def _row(file: Path, line: int, values: dict[str, str | None], columns: dict[str, str]) -> _Row:
    path, label, split = ((values.get(columns.get(name, "")) or "").strip() for name in ("path", "label", "split"))
    if not path or not label:
        raise HalftoneError(f"{file}, line {line}: the {'path' if not path else 'label'} is missing")
    if "\0" in path:
        raise HalftoneError(f"{file}, line {line}: the path {path!r} contains a zero byte: correct it")
    if "split" in columns and split.lower() not in ("train", *HELD_OUT):
        raise HalftoneError(f"{file}, line {line}: the split is {split!r}, but must be train, val or test")
    return _Row(line=line, path=path, label=label, split=split.lower())


def _without_repeats(file: Path, rows: list[_Row]) -> list[_Row]:
    first: dict[str, _Row] = {}
    for row in rows:
        # One image can have several paths: cat.png, ./cat.png, an absolute path, a link.
        other = first.setdefault(os.path.realpath(file.parent / row.path), row)
        if other.label != row.label:
            raise HalftoneError(
                f"{file}, lines {other.line} and {row.line}: {row.path} is labelled {other.label!r} and {row.label!r}, "
                "but a picture has one class: remove one of the lines"
            )
        if other.split != row.split:
            raise HalftoneError(
                f"{file}, lines {other.line} and {row.line}: {row.path} is in both {other.split} and {row.split}, "
                "which makes the accuracy meaningless: remove one of the lines"
            )
    return list(first.values())


def _check_labels(file: Path, rows: list[_Row]) -> None:
    for row in {row.label: row for row in reversed(rows)}.values():
        if fault := fault_as_folder(row.label):
            raise HalftoneError(
                f"{file}, line {row.line}: the label {row.label!r} can't be the name of a class folder, because "
                f"{fault}: rename the class"
            )


def _check_files(file: Path, rows: list[_Row]) -> None:
    missing = [row for row in rows if not (file.parent / row.path).is_file()]
    if missing:
        raise HalftoneError(
            f"{file} lists {len(missing)} files that do not exist, such as {missing[0].path} in line "
            f"{missing[0].line}: paths are relative to {file.parent}"
        )


def _by_column(
    file: Path, rows: list[_Row], everything: FilePictures
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    splits = np.array([row.split for row in rows])
    held_out = next((name for name in HELD_OUT if name in splits), None)
    if held_out is None or "train" not in splits:
        raise HalftoneError(f"the column split of {file} must mark some rows train and some val")
    unseen = set(everything.targets[splits == held_out]) - set(everything.targets[splits == "train"])
    if unseen:
        name = everything.labels[min(unseen)]
        raise HalftoneError(
            f"{file} has the class {name!r} in {held_out} but not in train: mark some of its rows train"
        )
    return np.flatnonzero(splits == "train"), np.flatnonzero(splits == held_out)
