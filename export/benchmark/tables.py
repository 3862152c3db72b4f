"""Rows as an aligned table or as Markdown, with the machine and the date below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Cells = tuple[str, ...]

PIPED_WIDTH = 180


def as_text(headings: Cells, rows: Sequence[Cells], about: dict[str, Any]) -> str:
    """An aligned table; numbers stand to the right."""
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich takes a pipe to be 80 columns wide and would fold the rows.
        console.width = PIPED_WIDTH
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if _numeric(rows, place) else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    with console.capture() as capture:
        console.print(table)
        console.print(Text(_footnote(about)))
    return capture.get().rstrip("\n")


def as_markdown(headings: Cells, rows: Sequence[Cells], about: dict[str, Any]) -> str:
    """A GitHub-flavoured table."""
    rule = "|".join("---:" if _numeric(rows, place) else "---" for place in range(len(headings)))
    head, *body = (f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in (headings, *rows))
    return "\n".join((head, f"|{rule}|", *body, "", _footnote(about)))


def _numeric(rows: Sequence[Cells], place: int) -> bool:
    filled = [row[place] for row in rows if row[place]]
    return bool(filled) and all(cell[0].isdigit() for cell in filled)


def _footnote(about: dict[str, Any]) -> str:
    machine = about["host"]
    features = f" ({', '.join(machine['features'])})" if machine["features"] else ""
    line = f"{machine['cpu']}{features}, {machine['cores']} cores, {machine['system']}, {about['date']}"
    return f"{line}; {about['note']}" if "note" in about else line
