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
from loadtest.openloop.interval import interval
from loadtest.openloop.level import Level, level, stationarity
from loadtest.openloop.load import poisson
from loadtest.openloop.process import Generator
from loadtest.openloop.rate_search import highest_rate
from loadtest.openloop.samples import Run, Sample, Target
from loadtest.openloop.simulation import SERVICE_MS, coverage, latencies_ms, search_error, true_percentile
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


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.1, 1e3), min_size=300, max_size=600), st.sampled_from([50.0, 90.0, 99.0]))
def test_the_interval_holds_the_percentile(values: list[float], percent: float) -> None:
    found = interval(values, percent)

    if found:
        low, high = found
        assert low <= percentile(values, percent) <= high < math.inf


@pytest.mark.parametrize(("utilisation", "seconds"), [(0.3, 10), (0.6, 10), (0.9, 60)])
def test_the_interval_holds_the_true_percentile_of_a_queue(utilisation: float, seconds: float) -> None:
    found = coverage(utilisation, seconds, range(20))

    assert found.given >= 0.8
    assert found.right >= 0.8


def test_a_run_that_is_too_short_has_no_interval() -> None:
    queue = coverage(0.9, 5, range(20))
    independent = [1 + math.sin(i) for i in range(3000)]

    assert queue.given <= 0.2
    assert interval(independent, 99)
    # One section of the three has no request beyond the percentile; or that percentile failed.
    assert interval(independent[:299], 99) is None
    assert interval([math.inf, *independent[:30]] * 20, 99) is None
    assert interval([], 99) is None


def test_the_queue_that_is_simulated_has_the_known_distribution() -> None:
    # Half of the requests of a server that is busy for half of the time find it free.
    assert true_percentile(0.5, 50) == SERVICE_MS
    measured = latencies_ms(350, 200, 1)
    for percent in (60, 90, 99):
        assert percentile(measured, percent) == pytest.approx(true_percentile(0.7, percent), rel=0.1)


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


def test_one_level_broken_by_chance_lowers_the_rate_by_one_step_at_most() -> None:
    turns = itertools.count()

    found = highest_rate(lambda rate: rate <= 100 and next(turns) % 2 == 1, 100, resolution=0.03)

    assert 0.97 * 97 <= found <= 100


def test_the_highest_rate_is_one_that_held_again_with_fresh_arrivals() -> None:
    measured: list[tuple[float, bool]] = []

    def lucky_at_first(rate: float) -> bool:
        # Rates up to 110 hold as long as the search goes on, and then those up to 90.
        measured.append((rate, rate <= (110 if len(measured) < 10 else 90)))
        return measured[-1][1]

    found = highest_rate(lucky_at_first, 100, resolution=0.03)

    assert 0.9 * 90 <= found <= 90
    assert measured[-1] == (found, True)


def test_a_server_that_ends_after_the_search_has_no_rate() -> None:
    turns = itertools.count()

    assert highest_rate(lambda rate: rate <= 100 and next(turns) < 3, 100, resolution=0.03) == 0.0
    assert next(turns) < 20


def test_the_highest_rate_is_right_on_average() -> None:
    errors = [search_error(50, 6, seed) for seed in range(12)]

    assert statistics.fmean(errors) == pytest.approx(0, abs=0.03)


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
