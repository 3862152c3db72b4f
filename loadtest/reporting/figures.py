"""What a measurement found: figures with goals, hardware, versions and date; printed, kept as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.reporting.tables import hardware, versions


@dataclass(frozen=True)
class Figure:
    """One measured value and what it had to be."""

    name: str
    """What was measured, with its unit."""

    value: Any
    """What came out."""

    goal: str = ""
    """What it had to be, for people; empty: nothing was asked of it."""

    holds: bool = True
    """Whether it was so."""


@dataclass(frozen=True)
class Findings:
    """All figures of one command."""

    title: str
    """What was done."""

    figures: list[Figure]
    """In the order in which they are shown."""

    setting: Mapping[str, Any] = field(default_factory=dict)
    """Under which conditions: variant, seconds, seeds."""

    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))
    """When."""

    @property
    def exit_code(self) -> int:
        """0 where something was measured and every goal was met, else 1."""
        return int(not self.figures or not all(figure.holds for figure in self.figures))

    def report(self, output: Path | None) -> int:
        """Print; write `output`.json and `output`.md where it is given; return the exit code."""
        text = self._markdown()
        print(text, end="")
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            values = asdict(self) | {"met": not self.exit_code} | self._machine()
            output.with_suffix(".json").write_text(json.dumps(values, indent=1, default=str) + "\n")
            output.with_suffix(".md").write_text(text)
        return self.exit_code

    def _markdown(self) -> str:
        rows = [f"| {each.name} | {each.value} | {each.goal} | {_verdict(each)} |" for each in self.figures]
        machine = self._machine()
        facts = {"date": self.date, **self.setting, **machine["hardware"], **machine["versions"]}
        lines = [f"# {self.title}", "", "| | measured | goal | |", "|---|---|---|---|", *rows, ""]
        return "\n".join([*lines, *(f"- {name}: {value}" for name, value in facts.items()), ""])

    @staticmethod
    def _machine() -> dict[str, Any]:
        return {"hardware": hardware(), "versions": versions([])["here"]}


def _verdict(figure: Figure) -> str:
    if not figure.goal:
        return ""
    return "met" if figure.holds else "**missed**"
