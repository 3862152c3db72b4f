"""Report of a comparison: a table for the terminal and in Markdown, and every figure in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.table import Table

from loadtest.compare.goals import Goal
from loadtest.compare.summary import Level, Row, Spread
from loadtest.reporting.intervals import tie
from loadtest.reporting.tables import NOTHING, finite, markdown_table, plain


@dataclass(frozen=True, kw_only=True)
class Report:
    """All results of a run."""

    title: str
    date: datetime
    command: str
    rows: Sequence[Row]
    ratios: Sequence[str]
    """Headings of the ratios."""

    notes: Sequence[str]
    """Sentences below the table."""

    goals: Sequence[Goal]
    """Limits that the figures should keep."""

    behind: Sequence[str]
    """Figures in which another server is ahead of ours."""

    facts: Mapping[str, Any]
    """Hardware, versions and conditions, JSON-ready."""

    def markdown(self) -> str:
        """Return the whole report."""
        header, body = self._cells()
        lines = [
            f"# {self.title}, {self.date:%Y-%m-%d}",
            "",
            f"`{self.command}`",
            "",
            *markdown_table(header, body),
            "",
            *(f"- {goal.line()}" for goal in self.goals),
            *(f"- {line}" for line in self.behind),
            "",
            *(f"- {note}" for note in self.notes),
            *(f"- {name}: {plain(value)}" for name, value in self.facts.items() if name != "labels"),
        ]
        return "\n".join(lines) + "\n"

    def table(self) -> Table:
        """Return the table for the terminal."""
        header, body = self._cells()
        table = Table(title=self.title)
        for position, name in enumerate(header):
            table.add_column(name, justify="left" if position < 2 else "right")
        for row in body:
            table.add_row(*row)
        return table

    def to_json(self) -> str:
        """Return every figure."""
        document = {
            "title": self.title,
            "date": self.date.isoformat(timespec="seconds"),
            "command": self.command,
            "notes": list(self.notes),
            **self.facts,
            "behind": list(self.behind),
            "goals": [goal.to_dict() for goal in self.goals],
            "rows": [row.to_dict() for row in self.rows],
        }
        return json.dumps(finite(document), indent=1, ensure_ascii=False) + "\n"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        clients = list(self.facts["clients"])
        header = [
            "server",
            "engine",
            *(f"req/s, {number} client{'s' * (number > 1)}" for number in clients),
            f"p50 / p99 ms, {_middle(clients)} clients",
            *self.ratios,
            "same top-1",
            "errors",
            f"CPU ms a request, {_middle(clients)} clients",
            "peak RSS MB",
            "PSS MB",
            "cold start s",
        ]
        return header, [_row(row, clients, self.ratios) for row in self.rows]


def _row(row: Row, clients: Sequence[int], ratios: Sequence[str]) -> list[str]:
    if not row.levels:
        width = len(clients) + 7 + len(ratios)
        return [row.title, row.engine, f"not measured: {row.reason}", *[NOTHING] * (width - 1)]
    middle = next(level for level in row.levels if level.clients == _middle(clients))
    title = f"{row.title} (not all rounds: {row.reason})" if row.reason else row.title
    return [
        title,
        row.engine,
        *(_spread(level.rate) for level in row.levels),
        f"{middle.p50_ms.median:.1f} / {middle.p99_ms.median:.1f}",
        *(" / ".join(_ratio(level, heading) for level in row.levels) for heading in ratios),
        f"{row.same} of {row.pictures} pictures",
        str(_sum(row.levels, "errors")),
        NOTHING if middle.cpu_ms is None else f"{middle.cpu_ms:.1f}",
        NOTHING if row.peak_mib is None else f"{row.peak_mib.median:.0f}",
        NOTHING if row.share_mib is None else f"{row.share_mib.median:.0f}",
        NOTHING if row.cold_start_s is None else f"{row.cold_start_s.median:.1f}",
    ]


def _sum(levels: Sequence[Level], name: str) -> int:
    return sum(getattr(level, name) for level in levels)


def _middle(clients: Sequence[int]) -> int:
    return clients[len(clients) // 2]


def _spread(value: Spread) -> str:
    digits = 0 if value.median >= 10 else 1
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}–{value.high:.{digits}f})"


def _ratio(level: Level, heading: str) -> str:
    value = level.ratios[heading]
    if value is None:
        return NOTHING
    return f"{value:.2f} tie" if tie(level.ratio_intervals[heading]) else f"{value:.2f}"
