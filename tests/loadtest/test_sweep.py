"""`python -m loadtest.sweep`: the command line, and the search for the highest rate."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loadtest.openloop.level import Level, level
from loadtest.openloop.samples import Run, Sample
from loadtest.sweep.report import interval_note
from loadtest.sweep.scenarios import rising, server
from tests.commands import run
from tests.servers import Server


def sweep(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("loadtest.sweep", *arguments)


def test_one_command_measures_and_reports(server: Server, tmp_path: Path) -> None:
    result = sweep(
        *("--url", server.url, "--rates", "10", "30", "--seconds", "0.5", "--p99-ms", "2000"),
        *("--output", str(tmp_path / "sweep")),
    )

    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "sweep.json").read_text())
    served = server.get("/models").json()["models"][0]
    assert report["server"] == {name: served[key] for name, key in SERVER.items()}
    assert [level["offered"] for level in report["levels"]] == [10, 30, 30]
    assert report["highest_rate"] == 30
    for measured in [*report["levels"], *report["scenarios"].values()]:
        assert measured["requests"] > 0
        assert (measured["failed"], measured["wrong"]) == (0, 0)
        assert 0 < measured["latency_ms"]["50"] <= measured["latency_ms"]["99"]
    assert set(report["scenarios"]) == {"SingleStream", "MultiStream", "Offline"}
    assert report["warm_up"]["rates"]
    assert report["hardware"]["cores"] >= 1
    for plot in report["plots"]:
        with Image.open(tmp_path / plot) as image:
            assert image.format == "PNG"
    markdown = (tmp_path / "sweep.md").read_text()
    assert "![sweep-rate.png](sweep-rate.png)" in markdown
    assert "The load generator" in markdown


SERVER = {"model": "name", "version": "version", "variant": "variant"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "https://127.0.0.1:1"], "give the server's address as http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1/x"], "give the server's address as http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1"], "no server answers there"),
        (["--url", "http://127.0.0.1:1", "--model", "x"], "leave out --url"),
        (["--rates", "20", "10"], "--rates must be ascending"),
        (["--rates", "0"], "--rates must be above 0"),
        (["--p99-ms", "nan"], "--p99-ms must be"),
        (["--seconds", "0"], "--seconds must be"),
        (["--scenarios", "Offline", "Edge"], "choose from SingleStream, MultiStream, Offline"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], message: str) -> None:
    result = sweep(*arguments)

    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def with_latency(rate: float, seconds: float) -> Level:
    samples = [Sample(i / 10, i / 10, i / 10 + seconds, 200, True) for i in range(10)]
    return level(Run(samples=samples, cpu_share=0.1), offered=rate, begin=0, end=1, target_ms=50)


@settings(deadline=None)
@given(st.floats(1, 1000), st.floats(0, 2))
def test_the_highest_rate_is_the_last_one_below_the_first_miss(capacity: float, share: float) -> None:
    limit = share * capacity

    found = server(lambda rate: with_latency(rate, 0.01 if rate <= limit else 0.1), rising(capacity), 50)

    assert found.highest <= limit or found.highest == 0
    assert found.highest == max((each.offered for each in found.levels if each.holds(99, 50)), default=0)
    if 0.1 <= share < 1.5:
        assert limit - found.highest <= 0.026 * capacity
    rates = [each.offered for each in found.levels]
    assert rates == sorted(rates)
    # A rate that misses the target is measured twice, and the highest one again.
    twice = {each.offered for each in found.levels if not each.holds(99, 50)} | {found.highest}
    assert all(rates.count(rate) == (2 if rate in twice else 1) for rate in rates)


def test_the_highest_rate_has_to_hold_with_fresh_arrivals_or_a_lower_one_does() -> None:
    def measure(rate: float) -> Level:
        measured.append(rate)
        # 300 held by chance, once.
        return with_latency(rate, 0.01 if rate <= 200 or measured == [100, 200, 300] else 0.1)

    measured: list[float] = []
    found = server(measure, [100, 200, 300, 400], 50)

    assert found.highest == 200
    assert measured == [100, 200, 300, 400, 400, 350, 350, 325, 325, 300, 200]


def test_the_report_says_where_a_measurement_is_too_short_for_an_interval() -> None:
    short = with_latency(10, 0.01)

    assert short.p99_interval_ms is None
    assert "1 of 2 measurements are too short" in interval_note([short, replace(short, p99_interval_ms=(1.0, 2.0))])
    assert "too short" not in interval_note([replace(short, p99_interval_ms=(1.0, 2.0))])
