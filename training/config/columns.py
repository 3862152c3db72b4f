"""Columns of a table of labelled images, for the commands that read one."""

from __future__ import annotations

from dataclasses import dataclass

CHECKED = ("path", "label", "split", "problem", "suggested", "keep")
"""Of the table that `training.data --check --report` writes."""

REVIEWED = ("path", "label", "split", "annotator", "agreement")
"""Of the table that `training.data.review` writes."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of a table's columns; None: found by name and content."""

    path_column: str | None = None
    """Column of a CSV or TSV file with the pictures' files; default: found by name and content."""

    label_column: str | None = None
    """Its column with the classes; default: found by name, or the only other one, or one of 0 and 1 per class."""

    split_column: str | None = None
    """Its column with train, val or test, or True for validation; default: found by name and content."""
