"""Tables of labelled images: CSV or TSV files with a column of files, one of labels, and perhaps one of the split."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.errors import HalftoneError
from models.common.text import printable
from models.dataset import PART_NAMES, part_of
from training.config.columns import CHECKED, REVIEWED, Columns
from training.data.pictures import CHOSEN_ON_TEST, TEST_LEFT_ALONE, Data, FilePictures
from training.data.sources.columns import Table, picture_among, read_columns
from training.data.sources.labels import check_distinct, fault_as_folder
from training.data.split import Shares, divided
from training.data.subsets import SelectedPictures

SUFFIXES = frozenset({".csv", ".tsv"})

_OURS = frozenset({*CHECKED, *REVIEWED})
"""Columns of the tables that our own commands write: that some are for the reader alone needs no warning."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    path: str
    label: str
    split: str


def load_table(file: Path, shares: Shares, *, columns: Columns, for_training: bool = True) -> Data:
    """Load the images listed in a CSV or TSV file.

    Paths are relative to the file's folder or to a folder in it, or absolute; `\\` may separate them, and the suffix of
    an image may be missing. Every label is a class; classes are sorted by name. The rows of the validation part are
    held out, or those of the test part if there is none.

    Args:
        file: UTF-8 text with a header line; the separator is a comma, semicolon or tab.
        shares: of the parts if there is no column of the split.
        columns: the columns that the user names.
        for_training: as for `load_data`.

    Raises:
        HalftoneError: the file can't be used; the message names the line and the fix.
    """
    listed, unused = _read(file, columns)
    rows = _without_repeats(file, listed)
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
    warnings = _remarks(listed, rows, unused)
    if any(row.split for row in rows):
        return _by_column(file, rows, everything, warnings)
    return divided(everything, f"table {printable(file.name)}", shares, for_training=for_training, warnings=warnings)


def load_rows(file: Path, labels: tuple[str, ...]) -> FilePictures:
    """Load the images listed in a table that joins other data.

    Args:
        file: as for `load_table`; a column of the split may only say `train`, and one class is enough.
        labels: class names of the data.

    Raises:
        HalftoneError: as `load_table`; a label is none of the data's, or a row is not for training.
    """
    if not file.is_file():
        raise HalftoneError(f"--add {file}: no such file; name a table with the columns path,label")
    rows = _without_repeats(file, _read(file, Columns())[0])
    _check_files(file, rows)
    for row in rows:
        if row.label not in labels:
            raise HalftoneError(
                f"--add {file}, line {row.line}: the data has no class {row.label!r}: correct the label, or add "
                "pictures of that class to --data"
            )
        if row.split not in ("", "train"):
            raise HalftoneError(
                f"--add {file}, line {row.line}: the split is {row.split!r}, but added pictures are for training only: "
                "write train, or add the picture to --data"
            )
    return FilePictures(
        labels=labels,
        targets=np.array([labels.index(row.label) for row in rows], dtype=np.int64),
        root=file.parent,
        paths=[row.path for row in rows],
    )


def _read(file: Path, columns: Columns) -> tuple[list[_Row], list[str]]:
    """Return the rows that are kept, and the names of the columns that nothing is taken from."""
    header, table, lines = _table(file, columns)
    if not lines and not {"path", "label"} <= {name.lower() for name in table}:
        raise HalftoneError(f"{file} starts with {header[:80]!r}, but its first line must name the columns, path,label")
    if not lines:
        raise HalftoneError(f"{file} has a header but no rows: list one picture per line")
    reading = read_columns(file, table, columns)
    splits = reading.splits or [""] * len(lines)
    rows = [
        _Row(line=line, path=path, label=label, split=split)
        for line, path, label, split, keep in zip(
            lines, reading.paths, reading.labels, splits, reading.keep, strict=True
        )
        if keep
    ]
    if not rows:
        raise HalftoneError(f"{file} keeps no row: write 1 into its column keep for the pictures to use")
    for row in rows:
        _check_row(file, row, split=reading.splits is not None)
    return rows, reading.unused


def _table(file: Path, columns: Columns) -> tuple[str, Table, list[int]]:
    """Return the first line, the columns with their stripped values, and the line that each row ends in."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise HalftoneError(
            f"--data {file} can't be read ({error.strerror}): name a CSV file with the columns path,label"
        ) from None
    except UnicodeDecodeError:
        raise HalftoneError(f"{file} is not UTF-8 text: save it as CSV UTF-8") from None
    # Lines end as in the csv module, not at every line separator of Unicode.
    header = io.StringIO(text, newline="").readline().rstrip("\r\n")
    marks = ("\t", ",", ";") if file.suffix.lower() == ".tsv" else (",", ";", "\t")
    delimiter = next((mark for mark in marks if mark in header), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        names, *rows = [[value.strip() for value in row] for row in reader if row] or [[""]]
    except csv.Error as error:
        raise HalftoneError(
            f"{file}, line {reader.line_num}: this is not CSV ({error}): look for an unmatched quotation "
            "mark, here or above"
        ) from None
    _check_header(file, names, columns, delimiter)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise HalftoneError(f"{file} has two columns {repeated[0]!r}: rename one")
    lines = _ends(text, delimiter)
    values = {name: [row[place] if place < len(row) else "" for row in rows] for place, name in enumerate(names)}
    return header, values, lines


def _check_header(file: Path, names: list[str], columns: Columns, delimiter: str) -> None:
    """Refuse a first line that is a picture, which would be lost as the names of the columns."""
    place = picture_among(file.parent, names, columns)
    if place is None:
        return
    others = ["split" if part_of(name) else "label" for name in names]
    header = [*others[:place], "path", *others[place + 1 :]]
    if len(names) < 2 or len(set(header)) < len(header):
        header = ["path", "label"]
    line = ("<TAB>" if delimiter == "\t" else delimiter).join(header)
    raise HalftoneError(
        f"the first line of {file} is a picture ({names[place]}), but must name the columns: put the line `{line}` "
        "above it"
    )


def _ends(text: str, delimiter: str) -> list[int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    return [reader.line_num for row in reader if row][1:]


def _check_row(file: Path, row: _Row, *, split: bool) -> None:
    if not row.path or not row.label:
        raise HalftoneError(f"{file}, line {row.line}: the {'path' if not row.path else 'label'} is missing")
    if "\0" in row.path:
        raise HalftoneError(f"{file}, line {row.line}: the path {row.path!r} contains a zero byte: correct it")
    if split and row.split not in PART_NAMES:
        raise HalftoneError(f"{file}, line {row.line}: the split is {row.split!r}, but must be train, val or test")


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


def _remarks(listed: list[_Row], rows: list[_Row], unused: list[str]) -> tuple[str, ...]:
    remarks = []
    if repeats := len(listed) - len(rows):
        again = next(row for row in listed if row not in rows)
        remarks.append(f"{repeats} rows repeat a picture, such as line {again.line}: it counts once")
    if others := [name for name in unused if name not in _OURS]:
        remarks.append(f"nothing is taken from the columns {', '.join(others)}")
    return tuple(remarks)


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


def _by_column(file: Path, rows: list[_Row], everything: FilePictures, warnings: tuple[str, ...]) -> Data:
    splits = np.array([row.split for row in rows])
    held_out = next((part for part in ("val", "test") if part in splits), None)
    if held_out is None or "train" not in splits:
        raise HalftoneError(f"the column of the split of {file} must mark some rows train and some val")
    unseen = set(everything.targets[splits == held_out]) - set(everything.targets[splits == "train"])
    if unseen:
        name = everything.labels[min(unseen)]
        raise HalftoneError(
            f"{file} has the class {name!r} in {held_out} but not in train: mark some of its rows train"
        )
    parts = {part: SelectedPictures(everything, np.flatnonzero(splits == part)) for part in ("train", held_out, "test")}
    test = parts["test"] if held_out == "val" and "test" in splits else None
    if held_out == "test":
        warnings += (CHOSEN_ON_TEST.format(test="the part test", fix="mark some rows of train as val"),)
    elif test is not None:
        warnings += (TEST_LEFT_ALONE.format(test="the part test"),)
    return Data(
        train=parts["train"],
        val=parts[held_out],
        test=test,
        description=f"table {printable(file.name)}: split by its column",
        own_split=True,
        warnings=warnings,
    )
