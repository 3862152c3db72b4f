"""Meaning of a table's columns: which holds the files, which the labels, which the split.

A column that the user names is taken. The others are found by usual names and by their content, and a table that could
be read in two ways is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import HalftoneError
from models.dataset import SUFFIXES, Part, is_picture, part_of
from training.config.columns import Columns

_PATHS = re.compile(r"(image|img|picture|photo)?(path|file|filename|filepath|name|id)?s?|file_?path")
_LABELS = frozenset({"label", "labels", "class", "classes", "classname", "target", "category", "categoryname"})
_SPLITS = frozenset({"split", "splits", "set", "dataset", "subset", "partition", "part", "phase"})
_TRUE_FOR: dict[str, tuple[Part, Part]] = {
    "isvalid": ("val", "train"),
    "isval": ("val", "train"),
    "isvalidation": ("val", "train"),
    "valid": ("val", "train"),
    "validation": ("val", "train"),
    "val": ("val", "train"),
    "istest": ("test", "train"),
    "istrain": ("train", "val"),
    "istraining": ("train", "val"),
    "istrainingimage": ("train", "test"),
}
"""Name of a column of truth values to the parts of its true and its false rows."""

_FOLDS = re.compile(r"k?folds?(id)?|cv(fold)?")
_KEEP = "keep"
"""Name of a column whose false rows are left out."""

_TRUE, _FALSE = frozenset({"true", "1", "1.0", "yes"}), frozenset({"false", "0", "0.0", "no"})
_SAMPLE = 20
"""Rows that decide whether a column holds files."""

Table = dict[str, list[str]]
"""Column to its values, in the order of the rows."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the columns of a table mean."""

    paths: list[str]
    """Of the files, relative to the table's folder or absolute; those of missing files as they are written."""

    labels: list[str]

    splits: list[Part | str] | None
    """A part, or a word that means none; None without a column of them."""

    keep: list[bool]
    """False for a row to leave out."""

    unused: list[str]
    """Columns without a meaning."""


def read_columns(file: Path, table: Table, columns: Columns) -> Reading:
    """Find the columns and convert their values.

    Args:
        file: the table's file, whose folder the paths are relative to.
        table: its columns.
        columns: those that the user names.

    Raises:
        HalftoneError: a named column does not exist, or the table could be read in two ways.
    """
    table = {name: values for name, values in table.items() if not _numbers_the_rows(name, values)}
    for name in (columns.path_column, columns.label_column, columns.split_column):
        if name is not None and name not in table:
            raise HalftoneError(f"{file} has no column {name!r}: it has {', '.join(map(repr, table))}")
    path, folder = _path_column(file, table, columns)
    rest = [name for name in table if name not in (path, columns.label_column)]
    split = columns.split_column or _split_column(file, table, rest)
    rest = [name for name in rest if name != split]
    label = columns.label_column or _label_column(file, table, rest, path)
    classes = rest if label is None else [label]
    keep = next((name for name in rest if name not in classes and _plain(name) == _KEEP), None)
    return Reading(
        paths=[_found(folder, value) for value in table[path]],
        labels=table[label] if label is not None else _one_hot(file, table, rest),
        splits=_splits(file, split, table[split]) if split is not None else None,
        keep=_kept(file, table[keep]) if keep is not None else [True] * len(table[path]),
        unused=[name for name in rest if name not in (*classes, keep)],
    )


def picture_among(root: Path, names: Sequence[str], columns: Columns) -> int | None:
    """Return the place of a name that is a picture's file, so that a table lacks the line with the columns' names.

    Args:
        root: the table's folder.
        names: the values of its first line.
        columns: those that the user names.
    """
    named = {columns.path_column, columns.label_column, columns.split_column}
    if named & set(names) or {"path", "label"} & {_plain(name) for name in names}:
        return None
    # The suffix of a picture may be missing, so a column `image` could pass for image.png.
    unusual = [place for place, name in enumerate(names) if not _is_usual(name)]
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if unusual else []
    for place in unusual:
        if any((found := _file(folder, names[place])) and is_picture(folder / found) for folder in folders):
            return place
    return None


def _is_usual(name: str) -> bool:
    plain = _plain(name)
    return bool(_PATHS.fullmatch(plain)) or plain in _LABELS | _SPLITS | set(_TRUE_FOR)


def _kept(file: Path, values: list[str]) -> list[bool]:
    """Return which rows count; an empty cell does."""
    for row, value in enumerate(values):
        if value and value.lower() not in _TRUE | _FALSE:
            raise HalftoneError(
                f"{file}, row {row + 1} has {value!r} in the column {_KEEP}, which says what to leave out: write 0 or 1"
            )
    return [value.lower() not in _FALSE for value in values]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _numbers_the_rows(name: str, values: Sequence[str]) -> bool:
    """Return True for the index that pandas writes."""
    unnamed = not name or name.startswith("Unnamed:") or name == "index"
    return unnamed and all(value == str(row) or value == f"{row}.0" for row, value in enumerate(values))


def _path_column(file: Path, table: Table, columns: Columns) -> tuple[str, tuple[Path, Path]]:
    """Return the column of the files with the table's folder and the folder that they lie in."""
    usual = [name for name in table if _plain(name) == "path"]
    chosen = [columns.path_column] if columns.path_column else usual[:1]
    if chosen:
        return chosen[0], (file.parent, _folder_of(file.parent, table[chosen[0]]) or file.parent)
    found = {name: folder for name, values in table.items() if (folder := _folder_of(file.parent, values))}
    if len(found) > 1:
        found = {name: folder for name, folder in found.items() if _PATHS.fullmatch(_plain(name))} or found
    if len(found) != 1:
        raise HalftoneError(_unclear(file, table, "pictures' files", found))
    name, folder = found.popitem()
    return name, (file.parent, folder)


def _folder_of(root: Path, values: Sequence[str]) -> Path | None:
    """Return the folder that holds the files of the first rows: the table's own, or the only such one in it."""
    sample = [value for value in values[:_SAMPLE] if value]
    if not sample:
        return None
    # Not all: a missing file is reported with its line.
    holds = [
        folder
        for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir()))
        if 2 * sum(_file(folder, value) is not None for value in sample) > len(sample)
    ]
    return root if root in holds else holds[0] if len(holds) == 1 else None


def _found(folders: tuple[Path, Path], value: str) -> str:
    root, folder = folders
    name = _file(folder, value)
    return value if name is None else name if folder == root else f"{folder.name}/{name}"


def _file(folder: Path, value: str) -> str | None:
    """Return the name of the file that a value means, perhaps with another separator or a suffix; None if none."""
    if not value or "\0" in value:
        return None
    for name in dict.fromkeys((value, value.replace("\\", "/"))):
        for suffix in ("", *sorted(SUFFIXES)):
            try:
                if (folder / f"{name}{suffix}").is_file():
                    return f"{name}{suffix}"
            except OSError:
                # Too long for a name.
                return None
    return None


def _label_column(file: Path, table: Table, rest: list[str], path: str) -> str | None:
    """Return the column of the classes; None if each class has a column of its own."""
    usual = [name for name in rest if _plain(name) == "label"] or [name for name in rest if _plain(name) in _LABELS]
    if len(usual) == 1:
        return usual[0]
    if not usual and len(rest) == 1:
        return rest[0]
    if not usual and len(rest) > 1 and all(_truths(table[name]) for name in rest):
        return None
    raise HalftoneError(_unclear(file, table, "labels", usual or rest, path=path))


def _one_hot(file: Path, table: Table, names: list[str]) -> list[str]:
    labels = []
    for row, values in enumerate(zip(*(table[name] for name in names), strict=True)):
        chosen = [name for name, value in zip(names, values, strict=True) if value.lower() in _TRUE]
        if len(chosen) != 1:
            raise HalftoneError(
                f"{file}, row {row + 1} marks {len(chosen)} of the columns {', '.join(names)}, but a picture has one "
                "class: mark one, or name the column of the classes with --label-column"
            )
        labels.append(chosen[0])
    return labels


def _split_column(file: Path, table: Table, names: list[str]) -> str | None:
    """Return the column of the split, by its name or because all its values are parts; None without one."""
    by_name = [name for name in names if _plain(name) in _SPLITS]
    by_name += [name for name in names if _plain(name) in _TRUE_FOR and _truths(table[name])]
    by_content = [name for name in names if len({part_of(value) for value in table[name]} - {None}) > 1
                  and all(part_of(value) for value in table[name])]  # fmt: skip
    found = list(dict.fromkeys(by_content or by_name))
    if len(found) > 1:
        raise HalftoneError(
            f"{file} has the columns {' and '.join(found)}, and each looks like the split: name one with "
            f"--split-column {_quoted(found[0])}, and remove the other"
        )
    if not found:
        _check_no_folds(file, table, names)
    return found[0] if found else None


def _check_no_folds(file: Path, table: Table, names: list[str]) -> None:
    """Refuse a column of folds, which a random split would ignore."""
    for name in names:
        values = sorted(set(table[name]))
        if len(names) > 1 and _FOLDS.fullmatch(_plain(name)):
            raise HalftoneError(
                f"{file} has the column {name} with {', '.join(values[:5])}, which does not say which rows are for "
                "validation: add a column split with train and val, or remove this one"
            )


def _splits(file: Path, name: str, values: list[str]) -> list[Part | str]:
    if _truths(values):
        if _plain(name) not in _TRUE_FOR:
            raise HalftoneError(
                f"the column {name} of {file} holds {values[0]}, which does not say what is for validation: rename it "
                "to is_valid or is_train, or write train and val"
            )
        yes, no = _TRUE_FOR[_plain(name)]
        return [yes if value.lower() in _TRUE else no for value in values]
    return [part_of(value) or value for value in values]


def _truths(values: Iterable[str]) -> bool:
    return {value.lower() for value in values} <= _TRUE | _FALSE


def _unclear(file: Path, table: Table, what: str, found: Iterable[str], *, path: str | None = None) -> str:
    names, some = list(table), list(found)
    guess = path or (some[0] if some else names[0])
    label = next((name for name in (some if path else names) if name != guess), "NAME")
    which = f"{' and '.join(some)} could be" if some else "none is known as"
    return (
        f"{file} has the columns {', '.join(map(repr, names))}, and {which} that of the {what}: its first line must "
        f"name the columns, path,label or path,label,split, or say which they are: --path-column {_quoted(guess)} "
        f"--label-column {_quoted(label)}"
    )


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]+", name) else f'"{name}"'
