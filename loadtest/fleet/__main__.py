"""`python -m loadtest.fleet`: three replicas behind nginx under load, while they are restarted, killed and swapped.

Starts three replicas of the service with one thread each, and nginx with `deploy/nginx/halftone.conf`, on free ports of
127.0.0.1. Requests arrive at random over every route. Phases: nothing; a rolling restart; kill -9 of one; a hot swap
one by one; a canary with a tenth of the requests. No request may be lost, no response may come from a version that its
replica does not serve or name another one than computed it, and the 99th percentile of the replicas to which nothing
happens may at most double. At last the simulation of `loadtest.openloop.fleet` is compared with three replicas whose
engines wait instead of computing. Takes six minutes by default. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from loadtest.client.routes import Route, routes
from loadtest.fleet.measurement import Measurement
from loadtest.fleet.phases import Fleet
from loadtest.fleet.proxy import balanced, check_installed
from loadtest.fleet.replica import Replica, replica
from loadtest.fleet.simulated import compare
from loadtest.reporting.cli import PHOTOS, CompareError, JsonOutput, check_picture, check_positive, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.bundles import Bundle
from loadtest.servers.halftone import RefusedError, no_bundle

REPLICAS = 3
LONGER = 3
"""How much longer the comparison with the simulation measures than a phase lasts: it has the smaller tolerance."""


@dataclass(frozen=True, kw_only=True)
class FleetConfig(JsonOutput):
    """Restart, kill and swap replicas behind nginx under load."""

    model: str = "efficientnet_lite0"
    """Name of the bundle."""

    artifacts: Path = Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")
    """Folder of bundles, which stays unchanged."""

    image: Path = PHOTOS / "cat.jpg"
    """Picture to post."""

    rate: float = 40.0
    """Requests per second of all replicas together: well below what the machine can do."""

    seconds: float = 20.0
    """Length of the quiet phase and of the canary."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_positive(self, "rate", "seconds")
        check_picture(self.image, "--image")


def main(config: FleetConfig) -> int:
    """Measure and report; return the exit code."""
    check_installed()
    if not (config.artifacts / config.model / "manifest.json").is_file():
        raise CompareError(f"--model {config.model}: {no_bundle(config.model, config.artifacts)}")
    try:
        return measure(config).report(config.output)
    except RefusedError as error:
        raise CompareError(str(error)) from None


def measure(config: FleetConfig) -> Findings:
    """Put the fleet through all phases, compare it with the simulation, and return the figures."""
    picture = config.image.read_bytes()
    figures = under_load(config)
    figures += compare(config.model, config.artifacts, REPLICAS, picture, LONGER * config.seconds)
    setting = {"replicas": REPLICAS, "requests/s": config.rate, "model": config.model}
    return Findings("Three replicas behind nginx", figures, setting)


def under_load(config: FleetConfig) -> list[Figure]:
    """Start the fleet, put it through all phases, and return the figures."""
    picture, pause = config.image.read_bytes(), config.seconds / 10
    with _fleet(config, picture) as fleet:
        measurement = Measurement(fleet, _routes(config.model, picture), config.rate)
        figures = measurement.phase("quiet", lambda: time.sleep(config.seconds))
        figures += measurement.phase("rolling restart", lambda: fleet.restart(pause))
        figures += measurement.phase("kill -9 of one", lambda: fleet.kill(pause))
        figures += measurement.phase("hot swap one by one", lambda: fleet.swap(pause))
        figures += measurement.phase("canary", lambda: fleet.canary(config.seconds))
        return figures + measurement.canary_share()


@contextlib.contextmanager
def _fleet(config: FleetConfig, picture: bytes) -> Iterator[Fleet]:
    """Start the replicas, each with a folder of its own, and nginx; stop them at the end."""
    token = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(dir=config.artifacts.parent, prefix=".fleet."))
        bundles = [
            Bundle(config.artifacts / config.model, Path(root) / str(number) / config.model)
            for number in range(REPLICAS)
        ]
        for bundle in bundles:
            bundle.write(0)

        def start(number: int) -> AbstractContextManager[Replica]:
            return replica(bundles[number], token, picture, HALFTONE_THREADS="1", HALFTONE_LOG_REQUESTS="0")

        replicas = [stack.enter_context(start(number)) for number in range(REPLICAS)]
        proxy = stack.enter_context(balanced({each.address: 1 for each in replicas}))
        yield Fleet(proxy=proxy, start=start, stack=stack, replicas=replicas)


def _routes(model: str, picture: bytes) -> list[Route]:
    """Return requests that each take a new connection, as nginx closes idle ones whenever it reads its file again."""
    return [replace(each, headers=each.headers | {"Connection": "close"}) for each in routes(model, picture)]


if __name__ == "__main__":
    run(main, FleetConfig, prog="python -m loadtest.fleet", example="--model photos --rate 40")
