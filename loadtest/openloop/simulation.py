"""`python -m loadtest.openloop.simulation`: errors of the figures for a queue whose true ones are known.

Simulates random arrivals at one server that takes 2 ms for each (M/D/1), whose latency has a known distribution
(Erlang 1909). The first table gives how often the 95 % interval of p99 contains the true p99, the second how far the
highest rate found is from the true one. Takes one to two minutes and loads no server. Exit code 1 if the interval is
right in fewer than 85 % of the longest runs, or a wrong one is given in more than 15 % of any runs.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.client.load import percentile
from loadtest.openloop.interval import interval
from loadtest.openloop.level import stationarity
from loadtest.openloop.load import poisson
from loadtest.openloop.rate_search import highest_rate
from loadtest.reporting.cli import CompareError, JsonOutput, publish, run
from loadtest.reporting.tables import NOTHING, markdown_table

SERVICE_MS = 2.0
UTILISATIONS = (0.3, 0.5, 0.7, 0.8, 0.9)
SECONDS = (10.0, 30.0, 60.0)
TARGETS_MS = (20.0, 50.0)
GOAL = 0.85

_RAMP, _RESOLUTION, _SEARCH_SECONDS = 1.0, 0.03, (6.0, 10.0)
# Above it the alternating terms of the distribution cancel.
_HIGHEST, _LONGEST_WAIT = 0.95, 30.0


@dataclass(frozen=True, kw_only=True)
class Simulation(JsonOutput):
    """Simulate the queue."""

    seeds: int = 200
    """Runs of each kind; a quarter as many searches."""

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= 10_000:
            raise CompareError("--seeds must be 1 to 10000")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Intervals of many runs."""

    given: float
    """Share of the runs that are long enough for an interval."""

    wrong: float
    """Share of all runs whose interval doesn't contain the true percentile."""

    width: float
    """Median of upper by lower end; NaN if there is no interval."""

    @property
    def right(self) -> float:
        """Share of the intervals that contain the true percentile; NaN if there is none."""
        return 1 - self.wrong / self.given if self.given else math.nan


def main(config: Simulation) -> int:
    """Simulate and print the tables; return the exit code."""
    table, holds = [], True
    for utilisation, seconds in itertools.product(UTILISATIONS, SECONDS):
        found = coverage(utilisation, seconds, range(config.seeds))
        holds &= found.wrong <= 1 - GOAL and (seconds < max(SECONDS) or found.right >= GOAL)
        given = [f"{found.right:.0%}", f"× {found.width:.2f}"] if found.given else [NOTHING, NOTHING]
        p99 = f"{true_percentile(utilisation, 99):.1f}"
        table.append([f"{utilisation:g}", f"{seconds:g}", p99, f"{found.given:.0%}", *given, f"{found.wrong:.0%}"])
    header = ["utilisation", "seconds", "true p99 ms", "interval given", "right, of those", "width", "wrong, of all"]
    print("\n".join(markdown_table(header, table, texts=0)), end="\n\n", flush=True)
    errors = []
    for target, seconds in itertools.product(TARGETS_MS, _SEARCH_SECONDS):
        far = [search_error(target, seconds, seed) for seed in range(max(1, config.seeds // 4))]
        errors.append([f"{target:g}", f"{seconds:g}", f"{statistics.fmean(far):+.1%}", f"{statistics.pstdev(far):.1%}"])
    searched = ["p99 ≤ ms", "seconds", "mean error of the rate", "SD"]
    print("\n".join(markdown_table(searched, errors, texts=0)))
    publish(
        {
            "coverage": [dict(zip(header, row, strict=True)) for row in table],
            "search": [dict(zip(searched, row, strict=True)) for row in errors],
        }
    )
    return int(not holds)


def coverage(utilisation: float, seconds: float, seeds: Sequence[int], percent: float = 99.0) -> Coverage:
    """Return how often the interval of a percentile contains the true one.

    Args:
        utilisation: share of the time that the server is busy, 0 to 0.95.
        seconds: length of a run after its ramp.
        seeds: of the arrivals, one a run.
        percent: the percentile.
    """
    true = true_percentile(utilisation, percent)
    found = [interval(latencies_ms(1000 * utilisation / SERVICE_MS, seconds, seed), percent) for seed in seeds]
    ends = [each for each in found if each]
    return Coverage(
        given=len(ends) / len(seeds),
        wrong=sum(not low <= true <= high for low, high in ends) / len(seeds),
        width=statistics.median([high / low for low, high in ends]) if ends else math.nan,
    )


def search_error(target_ms: float, seconds: float, seed: int) -> float:
    """Return the relative error of the highest rate found in measurements of this length."""
    seeds = itertools.count(1000 * seed)

    def holds(rate: float) -> bool:
        latencies = latencies_ms(rate, seconds, next(seeds))
        drift, steady = stationarity(latencies, target_ms)
        return percentile(latencies, 99) <= target_ms and (steady or drift < 1)

    return highest_rate(holds, 1000 / SERVICE_MS, resolution=_RESOLUTION) / true_rate(target_ms) - 1


def latencies_ms(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the latencies of a run in milliseconds: of the requests after a ramp of one second.

    They are rounded to nanoseconds, so that requests that didn't wait have equal ones.
    """
    free, found = 0.0, []
    for arrival in poisson(rate, _RAMP + seconds, seed):
        free = max(free, arrival) + SERVICE_MS / 1000
        if arrival >= _RAMP:
            found.append(round(1000 * (free - arrival), 6))
    return found


def true_percentile(utilisation: float, percent: float) -> float:
    """Return a percentile of latency in milliseconds, for a utilisation of at most 0.95."""
    low, high = 0.0, _LONGEST_WAIT
    if _share(low, utilisation) < percent / 100:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if _share(middle, utilisation) >= percent / 100 else (middle, high)
    else:
        high = low
    return SERVICE_MS * (1 + high)


def true_rate(target_ms: float) -> float:
    """Return the rate whose 99th percentile is the target, in requests a second."""
    low, high = 0.0, _HIGHEST
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if true_percentile(middle, 99) <= target_ms else (low, middle)
    return 1000 * low / SERVICE_MS


def _share(wait: float, utilisation: float) -> float:
    """Return the share of requests that wait at most `wait` service times (Erlang's formula)."""
    terms = ((utilisation * (k - wait), k) for k in range(int(wait) + 1))
    return (1 - utilisation) * math.fsum(x**k / math.factorial(k) * math.exp(-x) for x, k in terms)


if __name__ == "__main__":
    run(main, Simulation, prog="python -m loadtest.openloop.simulation", example="--seeds 50")
