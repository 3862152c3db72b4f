"""The open loop: its arithmetic, and what it shows of servers that a closed loop does not."""

import contextlib
import itertools
import math
import os
import socket
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.client.load import percentile
from loadtest.openloop.level import Level, interval, level, stationarity
from loadtest.openloop.load import poisson
from loadtest.openloop.process import Generator
from loadtest.openloop.rate_search import highest_rate
from loadtest.openloop.samples import Run, Sample, Target
from loadtest.servers.peer import INDEX
from loadtest.servers.process import NotReadyError, free_port, server_process
from tests.servers import ROOT

STALLING = Path(__file__).parent / "stalling_server.py"
STALL = 0.8
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"


@settings(deadline=None, max_examples=50)
@given(st.floats(1, 500), st.floats(0, 5), st.integers(0, 2**32))
def test_arrivals_rise_and_stay_within_the_time(rate: float, seconds: float, seed: int) -> None:
    times = poisson(rate, seconds, seed)

    assert all(0 < time < seconds for time in times)
    assert times == sorted(times) == poisson(rate, seconds, seed)
    # The number is Poisson distributed: six standard deviations are once in a billion.
    assert len(times) == pytest.approx(rate * seconds, abs=6 * math.sqrt(rate * seconds) + 6)


@settings(deadline=None, max_examples=20)
@given(st.floats(10, 1000), st.integers(0, 2**32))
def test_gaps_between_arrivals_are_exponential(rate: float, seed: int) -> None:
    times = poisson(rate, 2000 / rate, seed)

    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert statistics.mean(gaps) * rate == pytest.approx(1, abs=0.15)
    assert statistics.stdev(gaps) * rate == pytest.approx(1, abs=0.2)
    assert sum(gap > 1 / rate for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.07)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=300), st.sampled_from([50.0, 90.0, 99.0]))
def test_the_interval_holds_the_percentile(values: list[float], percent: float) -> None:
    low, high = interval(values, percent)

    assert low <= percentile(values, percent) <= high


def test_the_interval_holds_the_true_percentile_95_times_in_100() -> None:
    hits = 0
    for seed in range(200):
        times = poisson(100.0, 10, seed)
        gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
        low, high = interval(gaps, 90)
        hits += low <= math.log(10) / 100 <= high
    assert 180 <= hits <= 199


def made(latencies: list[float], **changes: float) -> Level:
    samples = [Sample(i / 100, i / 100, i / 100 + each, 200, True) for i, each in enumerate(latencies)]
    run = Run(samples=samples, cpu_share=changes.get("cpu", 0.1), unsent=int(changes.get("unsent", 0)))
    return level(run, offered=100, begin=0.0, end=len(latencies) / 100, target_ms=50)


def test_a_queue_that_grows_does_not_hold_the_target_whatever_its_percentile() -> None:
    growing = made([0.0001 * i for i in range(400)])
    flat = made([0.04] * 400)

    assert (growing.ms(99) < 50, growing.steady, growing.holds(99, 50)) == (True, False, False)
    assert (flat.steady, flat.holds(99, 50), flat.holds(99, 39)) == (True, True, False)


@settings(deadline=None)
@given(st.lists(st.floats(0.001, 0.04), min_size=2, max_size=50))
def test_a_shuffled_half_is_no_drift(latencies: list[float]) -> None:
    assert stationarity([*latencies, *latencies], 50)[1]


def test_failures_and_wrong_answers_are_infinitely_slow_and_the_ramp_does_not_count() -> None:
    samples = [
        Sample(0.5, 0.5, 9.0, 0, False),
        *(Sample(1 + i / 100, 1 + i / 100, 1.01 + i / 100, 200, True) for i in range(98)),
        Sample(1.98, 1.98, 1.99, 503, False),
        Sample(1.99, 1.99, 2.0, 200, False),
    ]

    found = level(Run(samples=samples, cpu_share=0.1), offered=100, begin=1.0, end=2.0, target_ms=50)

    assert (found.requests, found.failed, found.wrong, found.achieved) == (100, 1, 1, 98)
    assert found.ms(97.5) == pytest.approx(10)
    assert found.ms(99) == math.inf


def test_a_slow_generator_is_said() -> None:
    assert not made([0.01] * 100).client_bound
    assert made([0.01] * 100, cpu=0.95).client_bound
    assert made([0.01] * 100, unsent=1).client_bound
    late = [Sample(i / 100, i / 100 + 0.02, i / 100 + 0.03, 200, True) for i in range(100)]
    assert level(Run(samples=late, cpu_share=0.1), offered=100, begin=0, end=1, target_ms=50).client_bound


@settings(deadline=None)
@given(st.floats(0.1, 1000), st.floats(0.05, 3))
def test_the_highest_rate_is_found_to_within_the_resolution(capacity: float, share: float) -> None:
    true = capacity * share

    found = highest_rate(lambda rate: rate <= true, capacity, resolution=0.03)

    assert found <= true
    assert found >= 0.97 * true


def test_a_server_that_never_holds_ends_the_search() -> None:
    assert highest_rate(lambda _: False, 100, resolution=0.03) == 0.0


def test_one_level_broken_by_chance_does_not_lower_the_rate() -> None:
    turns = itertools.count()

    found = highest_rate(lambda rate: rate <= 100 and next(turns) % 2 == 1, 100, resolution=0.03)

    assert 97 <= found <= 100


@contextlib.contextmanager
def server(*command: str) -> Iterator[Target]:
    port = free_port()

    def listens() -> None:
        # No request: the stall begins a second after the first one.
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError as error:
            raise NotReadyError(str(error)) from None

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with server_process([sys.executable, command[0], str(port), *command[1:]], environment, port) as process:
        process.wait_until(listens)
        yield Target(host="127.0.0.1", port=port, requests=[REQUEST], expected=[(0,)], answer=INDEX)


def test_a_stall_shows_in_the_open_loop_though_a_closed_loop_hides_it() -> None:
    with Generator() as generator:
        with server(str(STALLING), str(STALL)) as target:
            hidden = generator.closed(target, clients=1, seconds=3.0)
        with server(str(STALLING), str(STALL)) as target:
            shown = generator.poisson(target, rate=150, seconds=3.0, seed=1)

    closed, opened = (level(run, offered=150, begin=0, end=3, target_ms=50) for run in (hidden, shown))
    assert closed.failed == opened.failed == 0
    # One request of thousands met the stall in the closed loop, because its client waited; a quarter of all others did.
    assert closed.ms(100) > 1000 * STALL / 2
    assert closed.ms(97.5) < 1000 * STALL / 4 < opened.ms(90)


def test_a_generator_that_is_too_slow_says_so() -> None:
    bare = ROOT / "loadtest" / "peers" / "bare_socket.py"
    with Generator() as generator, server(str(bare)) as target:
        run = generator.poisson(target, rate=400_000, seconds=0.25, seed=1)

    assert level(run, offered=400_000, begin=0, end=0.25, target_ms=50).client_bound


def test_a_server_that_is_not_there_is_failures() -> None:
    target = Target(host="127.0.0.1", port=free_port(), requests=[REQUEST], expected=[(0,)], answer=INDEX)
    with Generator() as generator:
        run = generator.poisson(target, rate=100, seconds=0.5, seed=1)

    assert run.samples
    assert all(sample.status == 0 and not sample.right for sample in run.samples)
