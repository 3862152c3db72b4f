"""`python -m loadtest.sweep`: latency at rising rates until the target is missed, and the four scenarios of MLPerf.

Measures a running server (`--url http://127.0.0.1:3000`), or starts the service for the time of the measurement.
Requests arrive at random (a Poisson process) whether or not earlier ones have a response, and latency counts from the
intended send time: a server that stalls can't hide its queue (coordinated omission). Three to four minutes by default;
the machine should be idle otherwise.

The report goes to loadtest/reports/DATE-sweep.md and .json, with two plots (matplotlib). Exit code 1 if not even the
lowest rate holds the target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtest.client.pictures import VIEWS, prepared
from loadtest.openloop.level import Level
from loadtest.openloop.probe import WARM_UP_CLIENTS, Probe
from loadtest.openloop.process import Generator
from loadtest.openloop.target import Subject, address, meet
from loadtest.reporting.cli import PHOTOS, CompareError, JsonOutput, check_writable, publish, run
from loadtest.reporting.host import hardware, versions
from loadtest.servers.catalogue import ours
from loadtest.servers.peer import running
from loadtest.sweep import plots, scenarios
from loadtest.sweep.report import SweepReport, verdict

DONE, ANSWER_IS_NO = 0, 1
MAX_RATE, MAX_SECONDS, MAX_RATES = 20_000, 600, 50


@dataclass(frozen=True, kw_only=True)
class Config(JsonOutput):
    """Measure latency at rising rates.

    Raises:
        CompareError: a value is out of its range.
    """

    url: str = ""
    """Address of the server, http://HOST:PORT; empty: start the service here, with the HALFTONE_* variables set."""

    model: str = ""
    """Bundle to serve if the service is started here; empty: its default."""

    p99_ms: float = 50.0
    """Target for the 99th percentile of latency in milliseconds."""

    rates: tuple[float, ...] = ()
    """Requests per second, ascending; empty: tenths of the rate of a closed loop, then two between the last that held
    the target and the first that missed it."""

    seconds: float = 10.0
    """Seconds of each measurement, after a ramp of a fifth of it, at most one second."""

    scenarios: tuple[str, ...] = ("SingleStream", "MultiStream", "Offline")
    """Scenarios to measure in addition to Server."""

    images: Path = PHOTOS
    """Folder of photos; three views of each are sent, 500x375 pixels and about 47 KB."""

    plots: bool = True
    """Draw the plots."""

    output: Path | None = None
    """Path of the report's files without suffix; default: loadtest/reports/DATE-sweep."""

    def __post_init__(self) -> None:
        if self.url:
            address(self.url)
        _check(not (self.url and self.model), "--model is for a service that is started here: leave out --url")
        _check(0 < self.p99_ms <= 60_000, "--p99-ms must be above 0 and at most 60000")
        _check(0.5 <= self.seconds <= MAX_SECONDS, f"--seconds must be 0.5 to {MAX_SECONDS}")
        _check(len(self.rates) <= MAX_RATES, f"--rates takes at most {MAX_RATES} numbers")
        _check(all(0 < rate <= MAX_RATE for rate in self.rates), f"--rates must be above 0 and at most {MAX_RATE}")
        _check(list(self.rates) == sorted(set(self.rates)), "--rates must be ascending")
        known = [name for name in scenarios.NAMES if name != "Server"]
        _check(set(self.scenarios) <= set(known), f"--scenarios: choose from {', '.join(known)}")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise CompareError(message)


def main(config: Config) -> int:
    """Measure, write and print the report; return the exit code."""
    if config.plots:
        plots.check_installed()
    date = datetime.now(UTC)
    output = config.output or Path("loadtest/reports") / f"{date:%Y-%m-%d}-sweep"
    check_writable(output, "--output")
    pictures = prepared(config.images, VIEWS)
    with _server(config, pictures) as url, Generator() as generator:
        probe = Probe(generator=generator, seconds=config.seconds, target_ms=config.p99_ms)
        report = _measure(config, meet(url, pictures), probe, date)
    _write(config, report, output)
    return DONE if report.load.highest else ANSWER_IS_NO


@contextlib.contextmanager
def _server(config: Config, pictures: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the address of the given server, or of one that runs until the end of the block."""
    if config.url:
        yield config.url
        return
    if config.model:
        os.environ["HALFTONE_MODEL"] = config.model
    with running(ours(), Path(sys.executable), next(iter(pictures.values())), "") as server:
        yield f"http://127.0.0.1:{server.port}"


def _measure(config: Config, subject: Subject, probe: Probe, date: datetime) -> SweepReport:
    console = Console(stderr=True)
    single = subject.single()
    warm_up = probe.warm_up(single)
    measured = []
    for name in config.scenarios:
        console.print(name, highlight=False)
        measured.append(scenarios.closed(probe, subject, name))

    def measure(rate: float) -> Level:
        level = probe.open(single, rate)
        figures = f"{rate:7.1f}/s: p50 {level.ms(50):.1f}, p99 {level.ms(99):.1f} ms"
        console.print(f"{figures}, {verdict(level, config.p99_ms)}", highlight=False)
        return level

    capacity = 0.0 if config.rates else probe.closed(single, WARM_UP_CLIENTS).achieved
    _check(bool(config.rates) or capacity > 0, "the server gave no right response: see its log")
    return SweepReport(
        date=date,
        command=shlex.join(["python", "-m", "loadtest.sweep", *sys.argv[1:]]),
        server=subject.describe(),
        target_ms=config.p99_ms,
        seconds=config.seconds,
        warm_up=warm_up,
        scenarios=measured,
        load=scenarios.server(measure, config.rates or scenarios.rising(capacity), config.p99_ms),
        hardware=hardware(),
        versions=versions([])["here"],
    )


def _write(config: Config, report: SweepReport, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if config.plots:
        report = dataclasses.replace(report, plots=plots.draw(report.load.levels, config.p99_ms, path))
    publish(json.loads(report.to_json()))
    for suffix, text in ((".json", report.to_json()), (".md", report.markdown())):
        Path(f"{path}{suffix}").write_text(text)
    print(report.markdown())
    print(f"written: {path}.md and {path}.json")


if __name__ == "__main__":
    run(main, Config, prog="python -m loadtest.sweep", example="--url http://127.0.0.1:3000 --p99-ms 50")
