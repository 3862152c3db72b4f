"""`python -m loadtest.restarts`: requests lost when the service is stopped, or its worker killed, under load.

Starts `bentoml serve` under load, half of the clients over kept connections and half over a new one per request, sends
SIGTERM, and counts accepted requests without a response: the goal is 0. Then kills the worker of one server repeatedly
and measures the time until the service is ready. About 8 s per restart: 100 restarts and 20 kills take a quarter of an
hour. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.client.blocking import status_of
from loadtest.client.http1 import post
from loadtest.client.threaded import ThreadedClients
from loadtest.reporting.cli import PHOTOS, JsonOutput, check_least, check_picture, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import Server, started

STOP_SECONDS = 60
NOTICE_SECONDS = 0.25
"""Time for the signal to pass through two processes; after it /readyz must not return 200."""

_POLL = 0.02


@dataclass(frozen=True, kw_only=True)
class Restarts(JsonOutput):
    """Stop and kill the service under load."""

    image: Path = PHOTOS / "cat.jpg"
    """Picture to post."""

    sigterm: int = 100
    """Number of stops of the service."""

    sigkill: int = 20
    """Number of kills of its worker."""

    clients: int = 8
    """Clients that each send the next request after the last response."""

    lame_duck: float = 0.5
    """Seconds in which the service still accepts requests after SIGTERM (HALFTONE_LAME_DUCK)."""

    seed: int = 0
    """Seed of the random times of the signals."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_least(self, 0, "sigterm", "sigkill", "lame_duck")
        check_least(self, 2, "clients")
        check_picture(self.image, "--image")


@dataclass
class Stops:
    """Requests and exit codes counted over all stops by SIGTERM."""

    answered: int = 0
    lost: int = 0
    refused: int = 0
    cut: int = 0
    """Requests that the service cut off while the client was sending them."""

    statuses: Counter[int] = field(default_factory=Counter)
    exit_codes: Counter[int] = field(default_factory=Counter)
    late_ready: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass
class Kills:
    """Recovery times and lost requests of all kills of the worker by SIGKILL."""

    seconds: list[float] = field(default_factory=list)
    """Seconds from each kill to the next 200 of /readyz."""

    lost: list[int] = field(default_factory=list)
    """Requests lost by each kill, sent whole or in part."""

    refused: int = 0
    """Connections refused during all kills; they should wait for the next worker instead."""

    statuses: Counter[int] = field(default_factory=Counter)


def main(config: Restarts) -> int:
    """Measure and report; return the exit code."""
    body = config.image.read_bytes()
    requests = [post("/classify", body, keep_alive=keep) for keep in (True, False)]
    moments = random.Random(config.seed)
    stops = Stops()
    for _ in range(config.sigterm):
        stop_once(stops, requests, config, moments.uniform(0.2, 0.8))
    figures = _stop_figures(stops, config) if config.sigterm else []
    if config.sigkill:
        figures += _kill_figures(kill_workers(requests, config, moments), config)
    setting = {"clients": config.clients, "lame_duck": config.lame_duck, "seed": config.seed}
    return Findings("Restarts under load", figures, setting).report(config.output)


def stop_once(stops: Stops, requests: list[bytes], config: Restarts, seconds: float) -> None:
    """Start a server, load it for `seconds`, stop it with SIGTERM, and add the counts to `stops`."""
    with started(HALFTONE_LAME_DUCK=str(config.lame_duck)) as server:
        server.wait_until_ready()
        # Each client sends one kind of request, so that the client never closes a kept connection.
        pools = [ThreadedClients(server.port, [request], config.clients // 2) for request in requests]
        for pool in pools:
            pool.start()
        time.sleep(seconds)
        begin = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        stops.late_ready += _late_ready(server)
        stops.exit_codes[server.process.wait(timeout=STOP_SECONDS)] += 1
        stops.seconds.append(time.monotonic() - begin)
        for pool in pools:
            pool.stop()
            stops.answered += pool.count("answered")
            stops.lost += pool.count("lost")
            stops.refused += pool.count("refused")
            stops.cut += pool.count("cut")
            stops.statuses.update(pool.statuses())


def kill_workers(requests: list[bytes], config: Restarts, moments: random.Random) -> Kills:
    """Kill the worker of one loaded server `config.sigkill` times."""
    kills = Kills()
    with started() as server:
        server.wait_until_ready()
        pools = [ThreadedClients(server.port, [request], config.clients // 2) for request in requests]
        for pool in pools:
            pool.start()
        for _ in range(config.sigkill):
            time.sleep(moments.uniform(0.2, 0.8))
            before = _lost(pools)
            begin = time.monotonic()
            server.worker().kill()
            # The killed worker can't respond any more: a 200 is from its successor.
            server.wait_until_ready()
            kills.seconds.append(time.monotonic() - begin)
            kills.lost.append(_lost(pools) - before)
        for pool in pools:
            pool.stop()
            kills.refused += pool.count("refused")
            kills.statuses.update(pool.statuses())
    return kills


def _lost(pools: list[ThreadedClients]) -> int:
    return sum(pool.count("lost") + pool.count("cut") for pool in pools)


def _late_ready(server: Server) -> int:
    """Count the 200 responses of /readyz from NOTICE_SECONDS after the signal until connections are refused."""
    time.sleep(NOTICE_SECONDS)
    count = 0
    while (status := status_of(server.port, "/readyz")) != 0:
        count += status == 200
        time.sleep(_POLL)
    return count


def _stop_figures(stops: Stops, config: Restarts) -> list[Figure]:
    other = sum(number for status, number in stops.statuses.items() if status != 200)
    wrong = sum(number for code, number in stops.exit_codes.items() if code)
    return [
        Figure("SIGTERM under load", config.sigterm),
        Figure("accepted requests with status 200", stops.statuses[200]),
        Figure("accepted requests lost", stops.lost, "0", stops.lost == 0),
        Figure("accepted requests with another status", other, "0", other == 0),
        Figure("connections refused after the listener was closed", stops.refused),
        Figure("requests cut off while they were sent", stops.cut),
        Figure("exit codes other than 0", wrong, "0", wrong == 0),
        Figure("/readyz 200 later than 0.25 s after the signal", stops.late_ready, "0", stops.late_ready == 0),
        Figure("seconds to stop (median)", round(statistics.median(stops.seconds), 2)),
    ]


def _kill_figures(kills: Kills, config: Restarts) -> list[Figure]:
    slowest, most = max(kills.seconds), max(kills.lost)
    other = sum(number for status, number in kills.statuses.items() if status != 200)
    return [
        Figure("SIGKILL of the worker under load", config.sigkill),
        Figure("seconds until ready again (median)", round(statistics.median(kills.seconds), 2)),
        Figure("seconds until ready again (slowest)", round(slowest, 2), "at most 5", slowest <= 5),
        Figure(
            "requests lost by one kill (most)", most, f"at most the {config.clients} in flight", most <= config.clients
        ),
        Figure("connections refused during the kills", kills.refused, "0", kills.refused == 0),
        Figure("requests with another status than 200", other, "0", other == 0),
    ]


if __name__ == "__main__":
    run(main, Restarts, prog="python -m loadtest.restarts", example="--sigterm 10 --sigkill 2")
