"""Figures of one measurement with their goals, hardware, versions and date: printed, and kept as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.reporting.cli import publish
from loadtest.reporting.host import hardware, versions
from loadtest.reporting.tables import finite, markdown_table


@dataclass(frozen=True)
class Figure:
    """One measured value and its goal."""

    name: str
    """The measured quantity, with its unit."""

    value: Any
    """The result."""

    goal: str = ""
    """The goal in words; empty: there is none."""

    holds: bool = True
    """True if the goal is met."""


@dataclass(frozen=True)
class Findings:
    """All figures of one command."""

    title: str
    """Name of the measurement."""

    figures: list[Figure]
    """In the order in which they are shown."""

    setting: Mapping[str, Any] = field(default_factory=dict)
    """Conditions of the measurement: variant, seconds, seeds."""

    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))
    """Time of the measurement (UTC, ISO 8601)."""

    @property
    def exit_code(self) -> int:
        """0 if there are figures and every goal is met, else 1."""
        return int(not self.figures or not all(figure.holds for figure in self.figures))

    def report(self, output: Path | None) -> int:
        """Print and publish the figures, write `output`.json and .md if `output` is given; return the exit code."""
        text = self._markdown()
        values = asdict(self) | {"met": not self.exit_code} | self._machine()
        publish(values)
        print(text, end="")
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.with_suffix(".json").write_text(json.dumps(finite(values), indent=1, default=str) + "\n")
            output.with_suffix(".md").write_text(text)
        return self.exit_code

    def _markdown(self) -> str:
        rows = [[each.name, str(each.value), each.goal, _verdict(each)] for each in self.figures]
        machine = self._machine()
        facts = {"date": self.date, **self.setting, **machine["hardware"], **machine["versions"]}
        lines = [f"# {self.title}", "", *markdown_table(["", "measured", "goal", ""], rows, texts=4), ""]
        return "\n".join([*lines, *(f"- {name}: {value}" for name, value in facts.items()), ""])

    @staticmethod
    def _machine() -> dict[str, Any]:
        return {"hardware": hardware(), "versions": versions([])["here"]}


def _verdict(figure: Figure) -> str:
    if not figure.goal:
        return ""
    return "met" if figure.holds else "**missed**"
