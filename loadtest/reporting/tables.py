"""Markdown tables, and values as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"
"""Cell of a table without a value."""


def finite(value: Any) -> Any:
    """Return the value with null for infinity and NaN (a percentile of no values), which JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], *, texts: int = 2) -> list[str]:
    """Return the lines of a table whose first `texts` columns are text, the others figures."""
    rule = [*["---"] * texts, *["---:"] * (len(header) - texts)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (header, rule, *body)]


def plain(value: Any) -> str:
    """Return a value in words: `name value` pairs and items separated by commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)
