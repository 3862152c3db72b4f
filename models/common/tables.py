"""Markdown tables for the output of commands."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int]) -> str:
    """Return a GitHub-flavoured table without a final newline.

    Args:
        headings: one per column.
        rows: cells; a `|` in a cell is replaced by `∣`, as it would end the cell.
        right: indices of the columns to align to the right.
    """
    rule = "|".join("---:" if column in right else "---" for column in range(len(headings)))
    head, *body = (f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in (headings, *rows))
    return "\n".join((head, f"|{rule}|", *body))
