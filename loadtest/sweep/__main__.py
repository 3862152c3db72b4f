"""`python -m loadtest.sweep`: the latency at rising rates, until the target breaks, and the four scenarios of MLPerf.

Asks a server that runs (`--url http://127.0.0.1:3000`), or starts the service for the time of the measurement. Requests
arrive at random (a Poisson process) whether or not earlier ones were answered, and latency counts from the time at
which a request should have been sent: a server that stalls can't hide the queue that it makes (coordinated omission).
Three to four minutes by default; the machine should have nothing else to do.

The report goes to loadtest/reports/DATE-sweep.md and .json, with two plots (matplotlib). Exit code 1 where not even the
lowest rate held the target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tyro
from rich.console import Console

from loadtest.client.pictures import VIEWS, prepared
from loadtest.openloop.level import Level
from loadtest.openloop.probe import WARM_UP_CLIENTS, Probe
from loadtest.openloop.process import Generator
from loadtest.openloop.target import Subject, address, meet
from loadtest.reporting.cli import CompareError, run
from loadtest.reporting.tables import hardware, versions
from loadtest.servers.catalogue import ours
from loadtest.servers.process import running
from loadtest.sweep import plots, scenarios
from loadtest.sweep.report import Sweep, verdict

DONE, ANSWER_IS_NO = 0, 1
MAX_RATE, MAX_SECONDS, MAX_RATES = 20_000, 600, 50


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure latency at rising rates.

    Raises:
        CompareError: a value is out of its range.
    """

    url: str = ""
    """The server, http://HOST:PORT; empty: start the service here, with the HALFTONE_* variables that are set."""

    model: str = ""
    """Bundle to serve where the service is started here; empty: its default."""

    p99_ms: float = 50.0
    """Latency that 99 % of the requests should keep."""

    rates: tuple[float, ...] = ()
    """Requests a second, ascending; empty: tenths of what a closed loop reaches, then two between the last that held
    the target and the first that broke it."""

    seconds: float = 10.0
    """Length of each measurement, after a ramp of a fifth of it, at most one second."""

    scenarios: tuple[str, ...] = ("SingleStream", "MultiStream", "Offline")
    """Besides Server, which is always measured."""

    images: Path = Path("export/photos")
    """Folder of photos; three views of each are sent, 500x375 pixels and about 47 KB."""

    plots: bool = True
    """Draw the plots."""

    output: Path | None = None
    """The report's files without their ending; by default loadtest/reports/DATE-sweep."""

    def __post_init__(self) -> None:
        if self.url:
            address(self.url)
        _check(not (self.url and self.model), "--model is for a service that is started here: leave --url away")
        _check(0 < self.p99_ms <= 60_000, "--p99-ms must be above 0 and at most 60000")
        _check(0.5 <= self.seconds <= MAX_SECONDS, f"--seconds must be 0.5 to {MAX_SECONDS}")
        _check(len(self.rates) <= MAX_RATES, f"--rates takes at most {MAX_RATES} numbers")
        _check(all(0 < rate <= MAX_RATE for rate in self.rates), f"--rates must be above 0 and at most {MAX_RATE}")
        _check(list(self.rates) == sorted(set(self.rates)), "--rates must rise")
        known = [name for name in scenarios.NAMES if name != "Server"]
        _check(set(self.scenarios) <= set(known), f"--scenarios: choose from {', '.join(known)}")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise CompareError(message)


def main(config: Config) -> int:
    """Measure, write and print; the exit code."""
    if config.plots:
        plots.check_installed()
    date = datetime.now(UTC)
    pictures = prepared(config.images, VIEWS)
    with _served(config, pictures) as url, Generator() as generator:
        probe = Probe(generator=generator, seconds=config.seconds, target_ms=config.p99_ms)
        sweep = _measure(config, meet(url, pictures), probe, date)
    _write(config, sweep, config.output or Path("loadtest/reports") / f"{date:%Y-%m-%d}-sweep")
    return DONE if sweep.load.highest else ANSWER_IS_NO


@contextlib.contextmanager
def _served(config: Config, pictures: Mapping[str, bytes]) -> Iterator[str]:
    """The address of the server."""
    if config.url:
        yield config.url
        return
    if config.model:
        os.environ["HALFTONE_MODEL"] = config.model
    with running(ours(), Path(sys.executable), next(iter(pictures.values())), "") as server:
        yield f"http://127.0.0.1:{server.port}"


def _measure(config: Config, subject: Subject, probe: Probe, date: datetime) -> Sweep:
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
    _check(bool(config.rates) or capacity > 0, "the server answers nothing rightly: look into its log")
    return Sweep(
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


def _write(config: Config, sweep: Sweep, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if config.plots:
        sweep = dataclasses.replace(sweep, plots=plots.draw(sweep.load.levels, config.p99_ms, path))
    for suffix, text in ((".json", sweep.to_json()), (".md", sweep.markdown())):
        Path(f"{path}{suffix}").write_text(text)
    print(sweep.markdown())
    print(f"written: {path}.md and {path}.json")


if __name__ == "__main__":
    run(main, lambda: tyro.cli(Config, prog="python -m loadtest.sweep"))
