"""Search for the setting with the highest rate: coarse, one setting at a time, then rounds among the best."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.reporting.cli import PeerError
from loadtest.tune.setting import UNTUNED, Setting

_BEST_VARIANTS = 2


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Highest rate of one server within the target."""

    rate: float
    """Highest rate whose 99th percentile was within the target, in requests per second; 0: none."""

    p99_ms: float
    """99th percentile at that rate; NaN if no rate held the target."""

    variant: str
    """Variant that the server reports."""

    peak_mib: float
    """Peak resident memory of all processes of the server."""

    client_bound: bool
    """True if the load generator was too slow at any time."""


Measure = Callable[[Setting, bool], Measurement]
"""Starts a server with a setting and measures it: coarsely (False) or thoroughly (True); raises PeerError."""


@dataclass(kw_only=True)
class Trial:
    """Setting and its measurements."""

    setting: Setting
    coarse: Measurement | None = None
    thorough: list[Measurement] = field(default_factory=list)
    """Measurements of the rounds, in order."""

    reason: str = ""
    """Reason why the setting can't be measured."""

    @property
    def rate(self) -> float:
        """Median of the thorough rounds, else the coarse figure, else 0."""
        if self.thorough:
            return statistics.median(each.rate for each in self.thorough)
        return self.coarse.rate if self.coarse else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the trial for JSON; a percentile may still be NaN."""
        return {
            "setting": str(self.setting),
            "variables": self.setting.variables(),
            "coarse": dataclasses.asdict(self.coarse) if self.coarse else None,
            "thorough": [dataclasses.asdict(each) for each in self.thorough],
            "rate": self.rate,
            "reason": self.reason,
        }


def search(
    measure: Measure,
    *,
    variants: Sequence[str],
    workers: Sequence[int],
    threads: Sequence[int],
    batches: Sequence[int],
    finalists: int,
    rounds: int,
) -> list[Trial]:
    """Return all trials: the best one first, then the other finalists by rate, then the rest.

    The untuned service is always a finalist, so that the best trial is at least as good in the same rounds.

    Args:
        measure: starts a server with a setting and measures it.
        variants: variants to try, at least one.
        workers: numbers of workers to try.
        threads: numbers of threads to try, with one worker.
        batches: largest batches to try; 0: the service decides.
        finalists: number of tuned settings in the rounds.
        rounds: number of interleaved rounds, at least one.
    """
    untuned = Trial(setting=UNTUNED)
    if len(variants) == 1 and not (workers or threads or batches):
        # There is nothing to rank.
        trials = best = [Trial(setting=Setting(variant=variants[0]))]
    else:
        trials = _coarse(measure, variants, workers, threads, batches)
        best = [trial for trial in _ranked(trials) if trial.rate][:finalists]
    finals = [untuned, *best]
    for number in range(rounds):
        # Every second round in reverse order, so that a drift of the machine's speed favours no setting.
        for trial in finals if number % 2 == 0 else reversed(finals):
            _try(trial, lambda trial=trial: trial.thorough.append(measure(trial.setting, True)))  # type: ignore[misc]
    rest = [trial for trial in trials if trial not in best]
    return [*_ranked(finals), *_ranked(rest)]


def _coarse(
    measure: Measure, variants: Sequence[str], workers: Sequence[int], threads: Sequence[int], batches: Sequence[int]
) -> list[Trial]:
    trials: list[Trial] = []

    def attempt(settings: Sequence[Setting]) -> None:
        for setting in settings:
            if setting not in [trial.setting for trial in trials]:
                trial = Trial(setting=setting)
                trials.append(trial)
                _try(trial, lambda trial=trial: setattr(trial, "coarse", measure(trial.setting, False)))  # type: ignore[misc]

    attempt([Setting(variant=variant) for variant in variants])
    best = [trial.setting for trial in _ranked(trials)[:_BEST_VARIANTS]]
    attempt([dataclasses.replace(setting, threads=number) for setting in best for number in threads])
    attempt([dataclasses.replace(setting, workers=number) for setting in best for number in workers])
    best = [_ranked(trials)[0].setting]
    attempt([dataclasses.replace(setting, batch=size) for setting in best for size in batches])
    return trials


def _try(trial: Trial, work: Callable[[], None]) -> None:
    if trial.reason:
        return
    try:
        work()
    except PeerError as error:
        trial.reason = str(error)


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: (bool(trial.reason), -trial.rate))
