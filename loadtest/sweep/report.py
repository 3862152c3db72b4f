"""Report of a sweep, as Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loadtest.openloop.interval import LEAST_INDEPENDENT, SECTIONS
from loadtest.openloop.level import Level
from loadtest.openloop.probe import WarmUp
from loadtest.reporting.tables import finite, markdown_table, plain
from loadtest.sweep.scenarios import PERCENT, ClosedScenario, ServerScenario

_HEADER = (
    "offered/s",
    "right/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "95 % interval",
    "p99.9 ms",
    "failed",
    "wrong",
    "verdict",
)


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """All results of a sweep."""

    date: datetime
    command: str
    server: Mapping[str, str]
    """Model, version (its hash) and variant."""

    target_ms: float
    seconds: float
    """Length of each measurement."""

    warm_up: WarmUp
    scenarios: Sequence[ClosedScenario]
    load: ServerScenario
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]
    plots: Sequence[str] = ()
    """File names, in the folder of the report."""

    def notes(self) -> list[str]:
        """Return the notes on how far the figures can be trusted."""
        levels = [*(scenario.level for scenario in self.scenarios), *self.load.levels]
        steady = "the last two windows agree" if self.warm_up.steady else "the rate was still changing at the end"
        unsteady = f"{sum(not level.steady for level in levels)} of {len(levels)}"
        return [
            "Latency counts from the intended send time; a request that failed or got a wrong class counts as "
            "infinitely slow. A rate that misses the target is measured a second time, and the highest one that holds "
            "it is confirmed by a measurement with fresh arrivals.",
            interval_note(levels),
            f"Warm-up: {', '.join(f'{rate:.0f}' for rate in self.warm_up.rates)} requests/s; {steady}.",
            f"Stationarity: latency grew or fell from one half to the other in {unsteady} measurements.",
            generator_note(levels),
            "If the server runs on this machine, it shares the cores with the load generator.",
        ]

    def markdown(self) -> str:
        """Return the whole report."""
        lines = [
            f"# Latency and rate, {self.date:%Y-%m-%d}",
            "",
            f"`{self.command}`",
            "",
            f"{plain(self.server)}; {self.seconds:g} s each measurement.",
            "",
            *self._scenario_table(),
            "",
            "## Server: random arrivals at rising rates",
            "",
            *self._level_table(),
            "",
            *(f"![{name}]({name})" for name in self.plots),
            *([""] if self.plots else []),
            *(f"- {note}" for note in self.notes()),
            f"- hardware: {plain(self.hardware)}",
            f"- versions: {plain(self.versions)}",
        ]
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """Return every figure; an infinite latency is null."""
        document = {
            "title": "Latency and rate",
            "date": self.date.isoformat(timespec="seconds"),
            "command": self.command,
            "server": dict(self.server),
            "target_ms": self.target_ms,
            "seconds": self.seconds,
            "warm_up": {"rates": self.warm_up.rates, "steady": self.warm_up.steady},
            "scenarios": {scenario.name: scenario.to_dict() for scenario in self.scenarios},
            "highest_rate": self.load.highest,
            "levels": [level.to_dict() for level in self.load.levels],
            "notes": self.notes(),
            "hardware": dict(self.hardware),
            "versions": dict(self.versions),
            "plots": list(self.plots),
        }
        return json.dumps(finite(document), indent=1, ensure_ascii=False) + "\n"

    def _scenario_table(self) -> list[str]:
        body = [
            ["Server", "1", f"{self.load.highest:.1f} requests/s", f"p99 ≤ {self.target_ms:g} ms", "see below"],
            *(_scenario_row(scenario) for scenario in self.scenarios),
        ]
        return markdown_table(
            ["scenario", "pictures per request", "result", "meaning", "failed + wrong"], body, texts=1
        )

    def _level_table(self) -> list[str]:
        return markdown_table(_HEADER, [_level_row(level, self.target_ms) for level in self.load.levels], texts=0)


def _scenario_row(scenario: ClosedScenario) -> list[str]:
    level, percent = scenario.level, PERCENT.get(scenario.name)
    if percent is None:
        result, meaning = f"{scenario.images_per_second:.1f} images/s", f"{scenario.clients} clients"
    else:
        result, meaning = f"{level.ms(percent):.1f} ms", f"p{percent:g}, {scenario.images_per_second:.1f} images/s"
    return [scenario.name, str(scenario.pictures), result, meaning, str(level.failed + level.wrong)]


def _level_row(level: Level, target_ms: float) -> list[str]:
    return [
        f"{level.offered:.1f}",
        f"{level.achieved:.1f}",
        *(f"{level.ms(percent):.1f}" for percent in (50, 90, 99)),
        _interval(level.p99_interval_ms),
        f"{level.ms(99.9):.1f}",
        str(level.failed),
        str(level.wrong),
        verdict(level, target_ms),
    ]


def _interval(ends: tuple[float, float] | None) -> str:
    return "too short" if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"


def interval_note(levels: Sequence[Level]) -> str:
    """Return the note on the intervals of the 99th percentile."""
    without = sum(level.p99_interval_ms is None for level in levels)
    text = (
        f"The 95 % interval of p99 compares {SECTIONS} sections of a measurement, because requests in a queue wait "
        "together and are not independent"
    )
    if not without:
        return f"{text}."
    return (
        f"{text}. {without} of {len(levels)} measurements are too short for one: they are worth fewer than "
        f"{LEAST_INDEPENDENT} independent requests, or 1 % of them failed. Measure longer with --seconds."
    )


def generator_note(levels: Sequence[Level]) -> str:
    """Return the note on whether the load generator was the bottleneck."""
    bound = sum(level.client_bound for level in levels)
    if bound:
        return (
            f"The load generator was too slow in {bound} of {len(levels)} measurements: their figures are those of "
            "the generator, not of the server. Run it on another machine, or lower the rates."
        )
    late, busy = max(level.late_ms for level in levels), max(level.client_cpu for level in levels)
    return (
        f"The load generator was not the bottleneck: it sent 99 % of its requests at most {late:.1f} ms late, with "
        f"{busy:.0%} of a core at most."
    )


def verdict(level: Level, target_ms: float) -> str:
    """Return the verdict on a level in words."""
    words = ["holds" if level.holds(PERCENT["Server"], target_ms) else "misses"]
    if not level.steady:
        words.append("growing" if level.drift >= 1 else "settling")
    if level.client_bound:
        words.append("generator too slow")
    return ", ".join(words)
