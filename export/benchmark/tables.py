"""Format rows as an aligned table or as Markdown, with the machine and the date below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.common.text import markdown_table

Cells = tuple[str, ...]

PIPED_WIDTH = 180


def as_text(headings: Cells, rows: Sequence[Cells], about: dict[str, Any]) -> str:
    """Return an aligned table; columns of numbers are aligned to the right."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich assumes that a pipe is 80 columns wide and would fold the rows.
        console.width = PIPED_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if _numeric(rows, column) else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table)
        console.print(Text(_footnote(about)))
    return capture.get().rstrip("\n")


def as_markdown(headings: Cells, rows: Sequence[Cells], about: dict[str, Any]) -> str:
    """Return a GitHub-flavoured table; columns of numbers are aligned to the right."""
    numeric = [column for column in range(len(headings)) if _numeric(rows, column)]
    return "\n".join((markdown_table(headings, rows, right=numeric), "", _footnote(about)))


def _numeric(rows: Sequence[Cells], column: int) -> bool:
    filled = [row[column] for row in rows if row[column]]
    return bool(filled) and all(cell[0].isdigit() for cell in filled)


def _footnote(about: dict[str, Any]) -> str:
    machine = about["host"]
    features = f" ({', '.join(machine['features'])})" if machine["features"] else ""
    line = f"{machine['cpu']}{features}, {machine['cores']} cores, {machine['system']}, {about['date']}"
    return f"{line}; {about['note']}" if "note" in about else line
