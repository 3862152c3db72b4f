"""The simulated fleet beside formulas of queueing theory, and beside what was measured of one replica."""

import json
import math
import statistics

import pytest

from loadtest.client.load import percentile
from loadtest.openloop.fleet import BALANCERS, RAMP, Replica, fleet_latencies_ms
from loadtest.openloop.load import poisson
from loadtest.openloop.simulation import SERVICE_MS, latencies_ms, true_percentile
from tests.commands import run
from tests.servers import ROOT

SWEEP = ROOT / "loadtest" / "reports" / "2026-11-25-load" / "sweep.json"
ONE_AT_A_TIME = Replica(cores=1, fixed_ms=0, image_ms=(SERVICE_MS,), batch=1)
MEASURED = Replica(cores=2, fixed_ms=0.5, image_ms=(3.8,), batch=8)


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait in an M/M/c queue (Erlang 1917), by Erlang's loss formula and its recursion."""
    loss = 1.0
    for number in range(1, servers + 1):
        loss = load * loss / (number + load * loss)
    return loss / (1 - load / servers * (1 - loss))


def test_one_replica_of_one_core_is_the_queue_of_the_other_simulation() -> None:
    found = fleet_latencies_ms(ONE_AT_A_TIME, replicas=1, rate=350, seconds=200, balancer="fewest", seed=1)

    assert found == pytest.approx(latencies_ms(350, 200, 1), abs=1e-5)
    for percent in (60, 90, 99):
        assert percentile(found, percent) == pytest.approx(true_percentile(0.7, percent), rel=0.1)


def test_exponential_service_on_several_cores_waits_as_erlang_says() -> None:
    cores, rate, mean_ms = 4, 800.0, 4.0
    quantiles = tuple(-mean_ms * math.log(1 - (i + 0.5) / 2000) for i in range(2000))
    replica = Replica(cores=cores, fixed_ms=0, image_ms=quantiles, batch=1)

    found = fleet_latencies_ms(replica, replicas=1, rate=rate, seconds=100, balancer="random", seed=2)

    load = rate * mean_ms / 1000
    wait = 1000 * erlang_c(cores, load) / (cores * 1000 / mean_ms - rate)
    assert statistics.fmean(found) == pytest.approx(mean_ms + wait, rel=0.05)


def test_replicas_that_are_drawn_at_random_are_queues_of_their_own() -> None:
    found = fleet_latencies_ms(ONE_AT_A_TIME, replicas=5, rate=5 * 350, seconds=40, balancer="random", seed=3)

    assert percentile(found, 99) == pytest.approx(true_percentile(0.7, 99), rel=0.1)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_every_request_is_answered_once(balancer: str) -> None:
    found = fleet_latencies_ms(MEASURED, replicas=3, rate=1200, seconds=3, balancer=balancer, seed=4)

    assert len(found) == sum(arrival >= RAMP for arrival in poisson(1200, RAMP + 3, 4))
    assert min(found) >= 4.3 - 1e-6


def test_a_balancer_that_looks_is_better_than_one_that_does_not() -> None:
    p99 = {
        balancer: percentile(
            fleet_latencies_ms(MEASURED, replicas=8, rate=3400, seconds=10, balancer=balancer, seed=5), 99
        )
        for balancer in BALANCERS
    }

    assert p99["fewest"] < p99["fewer of two"] < p99["random"]


def test_batches_carry_what_single_images_can_not() -> None:
    costly = {"cores": 1, "fixed_ms": 8.0, "image_ms": (2.0,)}
    single, batches = Replica(**costly, batch=1), Replica(**costly, batch=8)

    assert (single.capacity, batches.capacity) == (pytest.approx(100), pytest.approx(8000 / 24))
    p99 = [
        percentile(fleet_latencies_ms(each, replicas=1, rate=200, seconds=20, balancer="random", seed=6), 99)
        for each in (single, batches)
    ]
    assert p99[1] < 100 < p99[0]


def test_it_is_near_what_was_measured_of_one_replica() -> None:
    levels = [each for each in json.loads(SWEEP.read_text())["levels"] if 300 < each["offered"] < 430]
    assert len(levels) >= 4
    ratios = [
        percentile(
            fleet_latencies_ms(MEASURED, replicas=1, rate=each["offered"], seconds=60, balancer="random", seed=7), 99
        )
        / each["latency_ms"]["99"]
        for each in levels
    ]

    assert statistics.median(ratios) == pytest.approx(1, abs=0.2)


def test_the_command() -> None:
    module = "loadtest.openloop.fleet"
    found = run(module, "--traffic", 600, "--seconds", 4, "--json")
    few = run(module, "--traffic", 600, "--seconds", 4, "--replicas", 1)
    never = run(module, "--traffic", 100, "--seconds", 4, "--p99-ms", 4)
    many = run(module, "--traffic", 1e6, "--seconds", 60)

    assert (found.returncode, few.returncode, never.returncode, many.returncode) == (0, 1, 2, 2)
    document = json.loads(found.stdout)
    assert document["replicas"] == 2
    assert [each["balancer"] for each in document["balancers"]] == list(BALANCERS)
    assert "1 replica of 2 cores for 600 requests/s: 116%" in few.stdout
    assert "don't hold --p99-ms 4, as one image alone takes up to 4.3 ms: raise --p99-ms" in never.stderr
    assert "simulate fewer --seconds" in many.stderr
