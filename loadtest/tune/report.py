"""Report of tuning: the settings file, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loadtest.reporting.intervals import ratio_interval, tie
from loadtest.reporting.tables import NOTHING, finite, markdown_table
from loadtest.tune.capacity import TOLERANCE, CapacityPlan
from loadtest.tune.search import Measurement, Trial
from loadtest.tune.setting import PASSED, UNTUNED


@dataclass(frozen=True, kw_only=True)
class TuningReport:
    """All results of a tuning run."""

    date: datetime
    command: str
    model: str
    target_ms: float
    verdicts: Mapping[str, str]
    """Variant to the verdict of its parity record."""

    trials: Sequence[Trial]
    """All trials, the best first."""

    plan: CapacityPlan
    traffic: tuple[float, ...]
    hardware: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def untuned(self) -> Trial:
        """Trial of the service with default settings, measured in the same rounds."""
        return next(trial for trial in self.trials if trial.setting == UNTUNED)

    def notes(self) -> list[str]:
        """Return the sentences below the table."""
        unproven = [name for name, verdict in self.verdicts.items() if verdict != PASSED]
        searches = [each for trial in self.trials for each in [trial.coarse, *trial.thorough] if each]
        bound, plan = sum(each.client_bound for each in searches), self.plan
        return [
            self._gain(),
            f"A second run with the settings file held {plan.confirmed:.1f} requests/s: the prediction is "
            f"{plan.error:.0%} off, {'within' if plan.holds else 'NOT within'} {TOLERANCE:.0%}.",
            *(f"{plan.sentence(each)}." for each in self.traffic),
            f"Left out because parity failed: {', '.join(unproven) or 'none'}. The service itself refuses them.",
            f"The load generator was too slow at some time in {bound} of {len(searches)} searches.",
            "Coarse figures are from short searches and only for ranking; thorough ones are medians of the rounds.",
        ]

    def _gain(self) -> str:
        best, untuned = self.trials[0], self.untuned.rate
        times = f"{best.rate / untuned:.2f} times as many" if untuned else "the untuned service held no rate"
        if best.setting != UNTUNED and tie(self._gain_interval()):
            times += f", a tie: the {len(best.thorough)} rounds can't tell the two apart, more with --rounds may"
        return (
            f"Chosen: {best.setting}, with {best.rate:.1f} requests/s; untuned {untuned:.1f} requests/s in the "
            f"same rounds: {times}."
        )

    def _gain_interval(self) -> tuple[float, float] | None:
        pairs = zip(self.trials[0].thorough, self.untuned.thorough, strict=False)
        return ratio_interval([best.rate / untuned.rate for best, untuned in pairs if untuned.rate])

    def markdown(self) -> str:
        """Return the whole report."""
        header = ["setting", "variant", "coarse, req/s", "thorough, req/s", "p99 ms", "MiB"]
        lines = [
            f"# {self.model} tuned for p99 ≤ {self.target_ms:g} ms, {self.date:%Y-%m-%d}",
            "",
            f"`{self.command}`",
            "",
            *markdown_table(header, [_row(trial) for trial in self.trials]),
            "",
            *(f"- {note}" for note in self.notes()),
            f"- hardware: {', '.join(f'{name} {value}' for name, value in self.hardware.items())}",
            f"- versions: {', '.join(f'{name} {value}' for name, value in self.versions.items())}",
        ]
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """Return every figure."""
        document = {
            "title": "Tuned",
            "date": self.date.isoformat(timespec="seconds"),
            "command": self.command,
            "model": self.model,
            "target_ms": self.target_ms,
            "chosen": self.trials[0].to_dict(),
            "untuned": self.untuned.to_dict(),
            "plan": self.plan.to_dict(self.traffic),
            "verdicts": dict(self.verdicts),
            "trials": [trial.to_dict() for trial in self.trials],
            "notes": self.notes(),
            "hardware": dict(self.hardware),
            "versions": dict(self.versions),
        }
        return json.dumps(finite(document), indent=1, ensure_ascii=False) + "\n"


def settings_text(model: str, best: Trial, *, target_ms: float, date: datetime, hardware: Mapping[str, Any]) -> str:
    """Return the text of a file for HALFTONE_SETTINGS."""
    variables = {"HALFTONE_MODEL": model, "HALFTONE_VARIANT": _variant(best)} | best.setting.variables()
    lines = [
        f"# {best.rate:.1f} requests/s with p99 within {target_ms:g} ms, measured on {date:%Y-%m-%d}",
        f"# on {hardware['cores']} cores of {hardware['cpu']}. Use: HALFTONE_SETTINGS=THIS_FILE bentoml serve",
        *(f"{name}={value}" for name, value in variables.items()),
    ]
    return "\n".join(lines) + "\n"


def _variant(trial: Trial) -> str:
    return next(each.variant for each in [*trial.thorough, trial.coarse] if each)


def _row(trial: Trial) -> list[str]:
    if trial.reason:
        return [str(trial.setting), f"not measured: {trial.reason}", *[NOTHING] * 4]
    last: Measurement | None = trial.thorough[-1] if trial.thorough else trial.coarse
    rates = [each.rate for each in trial.thorough]
    return [
        str(trial.setting),
        last.variant if last else NOTHING,
        f"{trial.coarse.rate:.1f}" if trial.coarse else NOTHING,
        f"{trial.rate:.1f} ({min(rates):.1f}–{max(rates):.1f})" if rates else NOTHING,
        f"{last.p99_ms:.1f}" if last else NOTHING,
        f"{last.peak_mib:.0f}" if last else NOTHING,
    ]
