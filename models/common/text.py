"""Text for a terminal or a Markdown page; what comes from files, folders and command lines is made safe to print."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

_LONG_WORD = re.compile(r"\S{1000,}")


def printable(text: object) -> str:
    """Return the text with every character escaped that could end a line or control a terminal.

    Such are control characters, separators of lines and paragraphs, marks that change the direction of the text, and
    the lone surrogates of names that aren't UTF-8.
    """
    return "".join(_escaped(character) for character in str(text))


def line(text: object) -> str:
    """Return a message as one line: the text as `printable`, with words of over 1,000 characters cut in the middle."""
    return _LONG_WORD.sub(lambda match: f"{match[0][:60]}…{match[0][-20:]}", printable(text))


def controls(text: str) -> bool:
    """Return True if the text contains a control character, or a separator of lines or paragraphs."""
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text)


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


def _escaped(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in _TURNING:
        return character.encode("unicode_escape").decode()
    return character


_TURNING = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
