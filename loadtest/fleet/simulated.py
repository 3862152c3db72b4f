"""The simulated fleet next to the real one: latency at two rates, from service times that the real one showed."""

from __future__ import annotations

from loadtest.client.load import percentile
from loadtest.openloop.fleet import Replica, fleet_latencies_ms
from loadtest.openloop.probe import Probe
from loadtest.openloop.process import Generator
from loadtest.openloop.samples import Target
from loadtest.openloop.target import meet
from loadtest.reporting.figures import Figure

WITHIN = 0.1
_SIMULATED_SECONDS, _SEED, _TARGET_MS = 1000.0, 1, 50.0


def compare(port: int, replicas: int, picture: bytes, rates: tuple[float, ...], seconds: float) -> list[Figure]:
    """Measure and simulate random arrivals.

    One client that waits for each response shows the service times, with what the proxy and the network take.

    Args:
        port: of the proxy.
        replicas: number of replicas with one thread each.
        picture: to classify.
        rates: requests a second.
        seconds: of each measurement.
    """
    target = meet(f"http://127.0.0.1:{port}", {"picture": picture}).single()
    figures: list[Figure] = []
    with Generator() as generator:
        times = _service_ms(generator, target, seconds)
        figures += [Figure("model: service time, p50 ms", _ms(percentile(times, 50)))]
        replica = Replica(cores=1, fixed_ms=0.0, image_ms=tuple(times), batch=1)
        for rate in rates:
            measured = Probe(generator=generator, seconds=seconds, target_ms=_TARGET_MS).open(target, rate)
            simulated = fleet_latencies_ms(
                replica, replicas=replicas, rate=rate, seconds=_SIMULATED_SECONDS, balancer="fewest", seed=_SEED
            )
            for percent in (50, 99):
                figures += _pair(f"model: {rate:g} requests/s, p{percent} ms", measured.ms(percent), simulated, percent)
    return figures


def _service_ms(generator: Generator, target: Target, seconds: float) -> list[float]:
    run = generator.closed(target, clients=1, seconds=seconds)
    return [1000 * sample.latency for sample in run.samples if sample.right]


def _pair(name: str, measured: float, simulated: list[float], percent: int) -> list[Figure]:
    expected = percentile(simulated, percent)
    error = expected / measured - 1
    return [
        Figure(f"{name}, measured", _ms(measured)),
        Figure(f"{name}, simulated", _ms(expected)),
        Figure(f"{name}, error", f"{error:+.1%}", f"within {WITHIN:.0%}", abs(error) <= WITHIN),
    ]


def _ms(value: float) -> float:
    return round(value, 2)
