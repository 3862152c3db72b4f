"""`python -m loadtest.tune --model NAME --p99-ms 50`: find the setting of the service with the highest throughput.

Starts the service with one setting after the other (variant, workers, threads, batch size; the service decides streams
and the waiting time of batches itself) and finds for each the highest rate of random arrivals that keeps the latency
target. Only proven variants are tried. The best ones and the untuned service are then measured in interleaved rounds,
the best setting becomes a settings file for HALFTONE_SETTINGS, and a second run with that file checks the capacity
plan.

About 15 minutes on two cores, which should be idle otherwise. The report goes to loadtest/reports/DATE-tune.md and
.json. Exit code 1 if no setting holds the target, or the second run differs from the plan by more than 15 %.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtest.client.pictures import VIEWS, prepared
from loadtest.openloop.probe import Probe
from loadtest.openloop.process import Generator
from loadtest.reporting.cli import PHOTOS, CompareError, JsonOutput, check_writable, publish, run
from loadtest.reporting.host import hardware, usable_cores, versions
from loadtest.tune.capacity import CapacityPlan
from loadtest.tune.report import TuningReport, settings_text
from loadtest.tune.search import Measurement, Trial, search
from loadtest.tune.setting import PASSED, artifacts, file_environment, verdicts
from loadtest.tune.trials import TrialRunner

DONE, ANSWER_IS_NO = 0, 1

_ADMIN = bool(os.environ.get("HALFTONE_ADMIN_TOKEN"))
_COARSE_SHARE, _MIN_SECONDS = 0.4, 0.5
"""Length of a coarse measurement: share of a thorough one, and at least these seconds."""


def _workers() -> tuple[int, ...]:
    return (usable_cores(),) if usable_cores() > 1 and not _ADMIN else ()


def _threads() -> tuple[int, ...]:
    return tuple(sorted({max(1, usable_cores() // 2), usable_cores() + 1} - {usable_cores()}))


@dataclass(frozen=True, kw_only=True)
class Config(JsonOutput):
    """Find the setting that holds the highest rate within a latency target.

    Raises:
        CompareError: a value is out of its range.
    """

    model: str = os.environ.get("HALFTONE_MODEL") or "efficientnet_lite0"
    """Bundle to serve."""

    p99_ms: float = 50.0
    """Target for the 99th percentile of latency in milliseconds."""

    variants: tuple[str, ...] = ()
    """Variants to try; empty: all proven ones."""

    workers: tuple[int, ...] = field(default_factory=_workers)
    """Numbers of workers to try besides one; default: one per core, or none if HALFTONE_ADMIN_TOKEN is set, which
    takes a single worker."""

    threads: tuple[int, ...] = field(default_factory=_threads)
    """Numbers of threads to try with one worker besides the number of cores; default: half of them, and one more."""

    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Largest batches to try besides the default, which the service decides from measured batch costs."""

    finalists: int = 2
    """Number of tuned settings that are measured against the untuned service in the rounds."""

    rounds: int = 2
    """Number of interleaved rounds, and of searches in the second run."""

    seconds: float = 6.0
    """Seconds of each thorough measurement; coarse ones take less than half."""

    resolution: float = 0.03
    """Relative resolution of the highest rate; three times as coarse in the coarse search."""

    traffic: tuple[float, ...] = (2000.0,)
    """Requests per second for the capacity plan."""

    utilisation: float = 0.8
    """Share of its highest rate that a replica is planned for."""

    images: Path = PHOTOS
    """Folder of photos; three views of each are sent, 500x375 pixels and about 47 KB."""

    settings: Path | None = None
    """File to write for HALFTONE_SETTINGS; default: NAME.env in the folder of bundles."""

    output: Path | None = None
    """Path of the report's files without suffix; default: loadtest/reports/DATE-tune."""

    def __post_init__(self) -> None:
        _check("," not in self.model, "--model takes one bundle: tune them one after the other")
        _check(0 < self.p99_ms <= 60_000, "--p99-ms must be above 0 and at most 60000")
        _check(0.5 <= self.seconds <= 600, "--seconds must be 0.5 to 600")
        _check(all(1 <= number <= 256 for number in self.workers), "--workers must be 1 to 256")
        _check(all(1 <= number <= 1024 for number in self.threads), "--threads must be 1 to 1024")
        _check(all(1 <= size <= 256 for size in self.batches), "--batches must be 1 to 256")
        _check(1 <= self.rounds <= 10 and 1 <= self.finalists <= 10, "--rounds and --finalists must be 1 to 10")
        _check(0.005 <= self.resolution <= 0.3, "--resolution must be 0.005 to 0.3")
        _check(0 < self.utilisation <= 1, "--utilisation must be above 0 and at most 1")
        _check(all(0 < each < math.inf for each in self.traffic), "--traffic must be positive")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise CompareError(message)


def main(config: Config) -> int:
    """Search, write and print the report; return the exit code."""
    date, known = datetime.now(UTC), verdicts(config.model)
    path = config.settings or artifacts() / f"{config.model}.env"
    output = config.output or Path("loadtest/reports") / f"{date:%Y-%m-%d}-tune"
    check_writable(path, "--settings")
    check_writable(output, "--output")
    os.environ["HALFTONE_MODEL"] = config.model
    with Generator() as generator:
        runner = _runner(config, generator)
        trials = _search(config, runner, known)
        best = trials[0]
        if not best.rate:
            return _target_missed(config, trials)
        _write(path, settings_text(config.model, best, target_ms=config.p99_ms, date=date, hardware=hardware()))
        name = f"second run, {path.name}"
        second = [runner.measure_server(file_environment(path), name, True) for _ in range(config.rounds)]
    report = TuningReport(
        date=date,
        command=shlex.join(["python", "-m", "loadtest.tune", *sys.argv[1:]]),
        model=config.model,
        target_ms=config.p99_ms,
        verdicts=known,
        trials=trials,
        plan=_plan(config, best, second),
        traffic=config.traffic,
        hardware=hardware(),
        versions=versions([])["here"],
    )
    _write_report(report, output)
    print(f"written: {path}; use it: HALFTONE_SETTINGS={path} bentoml serve")
    return DONE if report.plan.holds else ANSWER_IS_NO


def _search(config: Config, runner: TrialRunner, known: Mapping[str, str]) -> list[Trial]:
    return search(
        runner.measure,
        variants=config.variants or tuple(name for name, verdict in known.items() if verdict == PASSED),
        workers=config.workers,
        threads=config.threads,
        batches=config.batches,
        finalists=config.finalists,
        rounds=config.rounds,
    )


def _runner(config: Config, generator: Generator) -> TrialRunner:
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    def probe(thorough: bool) -> Probe:
        seconds = config.seconds if thorough else max(_MIN_SECONDS, _COARSE_SHARE * config.seconds)
        return Probe(generator=generator, seconds=seconds, target_ms=config.p99_ms)

    return TrialRunner(probe=probe, pictures=prepared(config.images, VIEWS), resolution=config.resolution, say=say)


def _plan(config: Config, best: Trial, second: list[Measurement]) -> CapacityPlan:
    return CapacityPlan(
        rate=best.rate,
        confirmed=statistics.median(each.rate for each in second),
        utilisation=config.utilisation,
        cores=usable_cores(),
        peak_mib=max(each.peak_mib for each in [*best.thorough, *second]),
    )


def _target_missed(config: Config, trials: list[Trial]) -> int:
    publish({"chosen": None, "trials": [trial.to_dict() for trial in trials]})
    print(f"no setting held p99 within {config.p99_ms:g} ms; no settings file was written", file=sys.stderr)
    for trial in trials:
        print(f"  {trial.setting}: {trial.reason or 'every rate missed the target'}", file=sys.stderr)
    return ANSWER_IS_NO


def _write_report(report: TuningReport, path: Path) -> None:
    publish(json.loads(report.to_json()))
    for suffix, text in ((".json", report.to_json()), (".md", report.markdown())):
        _write(Path(f"{path}{suffix}"), text)
    print(report.markdown())
    print(f"written: {path}.md and {path}.json")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    run(main, Config, prog="python -m loadtest.tune", example="--model photos --p99-ms 50")
