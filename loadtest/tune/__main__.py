"""`python -m loadtest.tune --model NAME --p99-ms 50`: the setting of the service that holds the most traffic.

Starts the service with one setting after the other (variant, workers, threads, batch size; its streams and how long a
batch waits it decides itself) and finds for each the highest rate of random arrivals that keeps the latency target.
Only proven variants are tried. The best ones and the untuned service then meet in interleaved rounds, the winner
becomes a settings file for HALFTONE_SETTINGS, and a second run with that file checks the capacity plan.

About 15 minutes on two cores, which should have nothing else to do. The report goes to loadtest/reports/DATE-tune.md
and .json. Exit code 1 where no setting held the target, or the second run was more than 15 % off.
"""

from __future__ import annotations

import math
import os
import shlex
import statistics
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tyro
from rich.console import Console

from loadtest.client.pictures import VIEWS, prepared
from loadtest.openloop.process import Generator
from loadtest.reporting.cli import CompareError, run
from loadtest.reporting.tables import hardware, versions
from loadtest.servers.process import usable_cores
from loadtest.tune.capacity import Plan
from loadtest.tune.report import Tuned, settings_text
from loadtest.tune.search import Held, Trial, search
from loadtest.tune.setting import PASSED, artifacts, file_environment, verdicts
from loadtest.tune.trials import Bench

DONE, ANSWER_IS_NO = 0, 1

_ADMINISTERED = bool(os.environ.get("HALFTONE_ADMIN_TOKEN"))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Find the setting that holds the highest rate within a latency target.

    Raises:
        CompareError: a value is out of its range.
    """

    model: str = os.environ.get("HALFTONE_MODEL") or "efficientnet_lite0"
    """Bundle to serve."""

    p99_ms: float = 50.0
    """Latency that 99 % of the requests should keep."""

    variants: tuple[str, ...] = ()
    """To try; empty: all that are proven."""

    workers: tuple[int, ...] = (usable_cores(),) if usable_cores() > 1 and not _ADMINISTERED else ()
    """Numbers of processes to try besides one; by default one a core, but none where HALFTONE_ADMIN_TOKEN is set, which
    takes a single one."""

    threads: tuple[int, ...] = tuple(sorted({max(1, usable_cores() // 2), usable_cores() + 1} - {usable_cores()}))
    """Numbers of threads to try in one process besides the default, which is the number of cores."""

    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Largest batches to try besides the default, which is found by what batches cost."""

    finalists: int = 2
    """How many tuned settings meet the untuned service in the rounds."""

    rounds: int = 2
    """Interleaved rounds, and searches of the second run."""

    seconds: float = 6.0
    """Length of each measurement; of the coarse ones less than half of it."""

    resolution: float = 0.03
    """Share of itself to which the highest rate is found; three times as much in the coarse search."""

    traffic: tuple[float, ...] = (2000.0,)
    """Requests a second that the capacity plan is for."""

    utilisation: float = 0.8
    """Share of the rate that it holds that a replica is planned for."""

    images: Path = Path("export/photos")
    """Folder of photos; three views of each are sent, 500x375 pixels and about 47 KB."""

    settings: Path | None = None
    """File to write for HALFTONE_SETTINGS; by default NAME.env in the folder of bundles."""

    output: Path | None = None
    """The report's files without their ending; by default loadtest/reports/DATE-tune."""

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
    """Search, write and print; the exit code."""
    date, known = datetime.now(UTC), verdicts(config.model)
    os.environ["HALFTONE_MODEL"] = config.model
    with Generator() as generator:
        bench = _bench(config, generator)
        trials = search(
            bench.measure,
            variants=config.variants or tuple(name for name, verdict in known.items() if verdict == PASSED),
            workers=config.workers,
            threads=config.threads,
            batches=config.batches,
            finalists=config.finalists,
            rounds=config.rounds,
        )
        winner = trials[0]
        if not winner.rate:
            return _nothing_held(config, trials)
        path = config.settings or artifacts() / f"{config.model}.env"
        _write(path, settings_text(config.model, winner, target_ms=config.p99_ms, date=date, hardware=hardware()))
        second = [bench.held(file_environment(path), f"second run, {path.name}", True) for _ in range(config.rounds)]
    tuned = Tuned(
        date=date,
        command=shlex.join(["python", "-m", "loadtest.tune", *sys.argv[1:]]),
        model=config.model,
        target_ms=config.p99_ms,
        verdicts=known,
        trials=trials,
        plan=_plan(config, winner, second),
        traffic=config.traffic,
        settings_file=path.name,
        hardware=hardware(),
        versions=versions([])["here"],
    )
    _report(tuned, config.output or Path("loadtest/reports") / f"{date:%Y-%m-%d}-tune")
    print(f"written: {path}; use it: HALFTONE_SETTINGS={path} bentoml serve")
    return DONE if tuned.plan.holds else ANSWER_IS_NO


def _bench(config: Config, generator: Generator) -> Bench:
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return Bench(
        generator=generator,
        pictures=prepared(config.images, VIEWS),
        target_ms=config.p99_ms,
        seconds=config.seconds,
        resolution=config.resolution,
        say=say,
    )


def _plan(config: Config, winner: Trial, second: list[Held]) -> Plan:
    return Plan(
        rate=winner.rate,
        confirmed=statistics.median(held.rate for held in second),
        utilisation=config.utilisation,
        cores=usable_cores(),
        peak_mib=max(held.peak_mib for held in [*winner.thorough, *second]),
    )


def _nothing_held(config: Config, trials: list[Trial]) -> int:
    print(f"no setting held p99 within {config.p99_ms:g} ms; no settings file was written", file=sys.stderr)
    for trial in trials:
        print(f"  {trial.setting}: {trial.reason or 'every rate broke the target'}", file=sys.stderr)
    return ANSWER_IS_NO


def _report(tuned: Tuned, path: Path) -> None:
    for suffix, text in ((".json", tuned.to_json()), (".md", tuned.markdown())):
        _write(Path(f"{path}{suffix}"), text)
    print(tuned.markdown())
    print(f"written: {path}.md and {path}.json")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


if __name__ == "__main__":
    run(main, lambda: tyro.cli(Config, prog="python -m loadtest.tune"))
