"""The simulated fleet next to a real one: latency at two rates, from service times that the real one showed.

The replicas of the real one are our service and nginx; only their engines wait instead of computing. On a machine with
fewer cores than replicas engines slow each other down, which replicas on machines of their own don't.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from loadtest.client.blocking import status_of
from loadtest.client.http1 import post
from loadtest.client.load import percentile
from loadtest.fleet.proxy import balanced
from loadtest.openloop.fleet import Replica, fleet_latencies_ms
from loadtest.openloop.probe import Probe
from loadtest.openloop.process import Generator
from loadtest.openloop.samples import Target
from loadtest.reporting.figures import Figure
from loadtest.servers.peer import INDEX
from loadtest.servers.process import NotReadyError, free_port, server_process

WAIT_MS = 20.0
"""Time that an engine takes for a picture."""

UTILISATIONS = (0.4, 0.5)
"""Shares of what the engines can do. The time of HTTP and the proxy counts as the engine's, so that nearer to the limit
the simulated queues are too long."""

WITHIN = 0.1

_SIMULATED_SECONDS, _SEED, _TARGET_MS = 1000.0, 1, 50.0
_SERVICE = "loadtest.peers.halftone_noop_full:Noop"


def compare(model: str, artifacts: Path, replicas: int, picture: bytes, seconds: float) -> list[Figure]:
    """Measure and simulate random arrivals.

    Args:
        model: name of a bundle, whose labels the replicas answer.
        artifacts: folder of bundles.
        replicas: number of replicas with one thread each.
        picture: to post.
        seconds: of each measurement.

    Raises:
        PeerError: a replica can't be started.
    """
    figures: list[Figure] = []
    with ExitStack() as stack:
        addresses = [stack.enter_context(_waiting(model, artifacts)) for _ in range(replicas)]
        port = stack.enter_context(balanced(dict.fromkeys(addresses, 1))).port
        request = post("/classify?top_k=1", picture, media_type="image/jpeg")
        target = Target(host="127.0.0.1", port=port, requests=[request], expected=[(0,)], answer=INDEX)
        generator = stack.enter_context(Generator())
        rates = [round(share * replicas * 1000 / WAIT_MS) for share in UTILISATIONS]
        times = _service_ms(generator, target, seconds, think=1 / rates[0])
        figures.append(Figure("model: service time, p50 ms", _ms(percentile(times, 50))))
        replica = Replica(cores=1, fixed_ms=0.0, image_ms=tuple(times), batch=1)
        for rate in rates:
            measured = Probe(generator=generator, seconds=seconds, target_ms=_TARGET_MS).open(target, rate)
            simulated = fleet_latencies_ms(
                replica, replicas=replicas, rate=rate, seconds=_SIMULATED_SECONDS, balancer="fewest", seed=_SEED
            )
            for percent in (50, 99):
                figures += _pair(f"model: {rate:g} requests/s, p{percent} ms", measured.ms(percent), simulated, percent)
    return figures


@contextlib.contextmanager
def _waiting(model: str, artifacts: Path) -> Iterator[str]:
    """Start a replica whose engine waits; yield its address."""
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", _SERVICE, "--host", "127.0.0.1", "--port", str(port)]
    settings = {"BENTOML_DO_NOT_TRACK": "True", "HALFTONE_MODEL": model, "HALFTONE_ARTIFACTS": str(artifacts)}
    peer = {"PEER_THREADS": "1", "PEER_WAIT_MS": str(WAIT_MS), "HALFTONE_LOG_REQUESTS": "0"}

    def respond() -> None:
        if (status := status_of(port, "/readyz")) != 200:
            raise NotReadyError(f"/readyz {status}")

    with server_process(command, os.environ | settings | peer, port) as server:
        server.wait_until(respond)
        yield f"127.0.0.1:{port}"


def _service_ms(generator: Generator, target: Target, seconds: float, think: float) -> list[float]:
    """Return the service times, with what HTTP, the proxy and the network take.

    One client waits for each response, and then for a random time. It never meets another request, and the replicas are
    as idle in between as under load: without a pause their caches would be warmer.
    """
    run = generator.closed(target, clients=1, seconds=seconds, think=think)
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
