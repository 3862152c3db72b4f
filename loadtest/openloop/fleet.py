"""`python -m loadtest.openloop.fleet --traffic 2000`: latency of replicas behind a balancer, by simulation.

Requests arrive at random. The balancer sends each one to a replica, whose cores take waiting images in batches: a
discrete-event model with measured service times (docs/scale.md has those of the default, and how right it is). The
table has the 99th percentile of latency for each way to balance, with all replicas and with one lost. Takes seconds
and loads no server. Exit code 1 if the target does not hold with all replicas, whatever the balancer does.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.client.load import percentile
from loadtest.openloop.level import stationarity
from loadtest.openloop.load import poisson
from loadtest.reporting.cli import CompareError, JsonOutput, check_least, check_positive, publish, run
from loadtest.reporting.tables import markdown_table

RAMP = 1.0
"""Seconds at the start whose requests don't count."""

_MOST_REQUESTS = 5_000_000
_LAST = 3
"""Largest multiple of the fewest replicas that can carry the traffic at all, in the search for those that hold it."""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """Service times of one replica."""

    cores: int
    """Cores, each of which runs one batch at a time."""

    fixed_ms: float
    """Time of a batch beside that of its images."""

    image_ms: tuple[float, ...]
    """Times of one image on one core, from which each image gets one at random."""

    batch: int
    """Largest batch; a free core takes all waiting images up to it."""

    @property
    def capacity(self) -> float:
        """Images per second while every core runs full batches."""
        mean = sum(self.image_ms) / len(self.image_ms)
        return 1000 * self.cores * self.batch / (self.fixed_ms + self.batch * mean)


Choose = Callable[[list[int], random.Random, int], int]
"""Returns a replica from the requests that each one has, a generator, and the number of the request."""

BALANCERS: dict[str, Choose] = {
    "random": lambda inside, generator, _: generator.randrange(len(inside)),
    "in turn": lambda inside, _, number: number % len(inside),
    "fewer of two": lambda inside, generator, _: min(
        generator.randrange(len(inside)), generator.randrange(len(inside)), key=inside.__getitem__
    ),
    "fewest": lambda inside, _, number: min(
        range(len(inside)), key=lambda each: (inside[each], (each - number) % len(inside))
    ),
}
"""Name to the choice: at random; round robin; the one with fewer requests of two drawn at random; that with fewest."""


class _Fleet:
    """The replicas' queues and the batches that run."""

    def __init__(self, replica: Replica, replicas: int, generator: random.Random) -> None:
        self.inside = [0] * replicas
        self.latencies: list[float] = []
        self._replica, self._generator = replica, generator
        self._waiting: list[deque[float]] = [deque() for _ in range(replicas)]
        self._free = [replica.cores] * replicas
        self._running: list[tuple[float, int, list[float]]] = []

    def arrive(self, now: float, number: int) -> None:
        """Give a replica a request that arrives `now`, in seconds."""
        self.inside[number] += 1
        self._waiting[number].append(now)
        self._start(now, number)

    def finish(self, until: float) -> None:
        """End the batches that are ready by then, and start those for which they make room."""
        while self._running and self._running[0][0] <= until:
            now, number, arrivals = heapq.heappop(self._running)
            self._free[number] += 1
            self.inside[number] -= len(arrivals)
            self.latencies += (round(1000 * (now - arrival), 6) for arrival in arrivals if arrival >= RAMP)
            self._start(now, number)

    def _start(self, now: float, number: int) -> None:
        waiting, replica = self._waiting[number], self._replica
        while self._free[number] and waiting:
            arrivals = [waiting.popleft() for _ in range(min(replica.batch, len(waiting)))]
            took = replica.fixed_ms + math.fsum(self._generator.choices(replica.image_ms, k=len(arrivals)))
            self._free[number] -= 1
            heapq.heappush(self._running, (now + took / 1000, number, arrivals))


def fleet_latencies_ms(
    replica: Replica, *, replicas: int, rate: float, seconds: float, balancer: str, seed: int
) -> list[float]:
    """Return the latencies in milliseconds of the requests after a ramp of one second.

    Args:
        replica: service times.
        replicas: number of replicas, at least 1.
        rate: requests per second of all of them.
        seconds: length of the run after the ramp.
        balancer: one of `BALANCERS`.
        seed: of arrivals, service times and choices.
    """
    generator = random.Random(seed)
    fleet, choose = _Fleet(replica, replicas, generator), BALANCERS[balancer]
    for number, now in enumerate(poisson(rate, RAMP + seconds, seed)):
        fleet.finish(now)
        fleet.arrive(now, choose(fleet.inside, generator, number))
    fleet.finish(math.inf)
    return fleet.latencies


@dataclass(frozen=True, kw_only=True)
class Config(JsonOutput):
    """Simulate replicas behind a balancer."""

    traffic: float = 2000.0
    """Requests per second of all replicas together."""

    replicas: int = 0
    """Number of replicas; 0: the fewest that hold the target when each request goes to the one with fewest."""

    p99_ms: float = 50.0
    """Target for the 99th percentile of latency in milliseconds."""

    cores: int = 2
    """Cores of a replica."""

    batch: int = 8
    """Largest batch."""

    fixed_ms: float = 0.5
    """Milliseconds of a batch beside those of its images."""

    image_ms: tuple[float, ...] = (3.8,)
    """Milliseconds of one image on one core, decoded and classified; several values are drawn from at random."""

    seconds: float = 20.0
    """Length of the simulated run."""

    seed: int = 0
    """Of arrivals, service times and choices."""

    def __post_init__(self) -> None:
        check_least(self, 1, "cores", "batch")
        check_least(self, 0, "replicas", "fixed_ms")
        check_positive(self, "traffic", "p99_ms", "seconds")
        if not self.image_ms or not all(0 < each < math.inf for each in self.image_ms):
            raise CompareError("--image-ms must be positive numbers")
        if self.traffic * self.seconds > _MOST_REQUESTS:
            raise CompareError(
                f"--traffic times --seconds must be at most {_MOST_REQUESTS:,} requests: simulate fewer --seconds"
            )


def main(config: Config) -> int:
    """Simulate and print the table; return the exit code."""
    replica = Replica(cores=config.cores, fixed_ms=config.fixed_ms, image_ms=config.image_ms, batch=config.batch)
    count = config.replicas or _fewest(config, replica)
    rows, holds = [], False
    for balancer in BALANCERS:
        all_of_them = _latencies(config, replica, count, balancer)
        one_lost = _latencies(config, replica, count - 1, balancer) if count > 1 else [math.inf]
        p99 = percentile(all_of_them, 99)
        holds |= p99 <= config.p99_ms
        rows.append(
            [balancer, *(f"{each:.1f}" for each in (percentile(all_of_them, 50), p99, percentile(one_lost, 99)))]
        )
    utilisation = config.traffic / (count * replica.capacity)
    replicas = f"{count} replica{'s' * (count > 1)} of {config.cores} core{'s' * (config.cores > 1)}"
    print(
        f"{replicas} for {config.traffic:g} requests/s: {utilisation:.0%} of the {replica.capacity:.0f} images/s that "
        "each one can do\n"
    )
    header = ["balancer", "p50 ms", "p99 ms", "p99 ms, one lost"]
    print("\n".join(markdown_table(header, rows, texts=1)))
    publish(
        {
            "replicas": count,
            "utilisation": utilisation,
            "balancers": [dict(zip(header, row, strict=True)) for row in rows],
        }
    )
    return int(not holds)


def _fewest(config: Config, replica: Replica) -> int:
    """Return the fewest replicas that hold the target.

    Raises:
        CompareError: three times as many as can carry the traffic at all don't hold it either.
    """
    least = math.ceil(config.traffic / replica.capacity)
    for count in range(least, _LAST * least + 2):
        latencies = _latencies(config, replica, count, "fewest")
        drift, steady = stationarity(latencies, config.p99_ms)
        if percentile(latencies, 99) <= config.p99_ms and (steady or drift < 1):
            return count
    raise CompareError(
        f"{_LAST * least + 1} replicas don't hold --p99-ms {config.p99_ms:g}, as one image alone takes up to "
        f"{config.fixed_ms + max(config.image_ms):g} ms: raise --p99-ms"
    )


def _latencies(config: Config, replica: Replica, replicas: int, balancer: str) -> list[float]:
    found = fleet_latencies_ms(
        replica,
        replicas=replicas,
        rate=config.traffic,
        seconds=config.seconds,
        balancer=balancer,
        seed=config.seed,
    )
    # So little traffic that no request came after the ramp.
    return found or [config.fixed_ms + max(config.image_ms)]


if __name__ == "__main__":
    run(main, Config, prog="python -m loadtest.openloop.fleet", example="--traffic 2000 --p99-ms 50")
