"""`python -m loadtest.restarts`: what is lost where the service is stopped, or its worker killed, under load.

Starts `bentoml serve`, lets clients ask, half of them over connections that live on and half over a new one each time,
sends SIGTERM, and counts the requests that were accepted and not answered: 0 is the goal. Then kills the worker of one
server again and again, and measures the time until it is ready. About 8 s a restart: 100 of them and 20 kills take a
quarter of an hour. Exit code 1 where a goal was missed.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import tyro

from loadtest.client.threaded import ThreadedClients, post
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import Server, started

STOP_SECONDS = 60
READY_SECONDS = 60
NOTICE_SECONDS = 0.25
"""A signal passes two processes; later than this after it /readyz must not say 200."""

_POLL = 0.02


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """Stop and kill the service under load."""

    image: Path = Path("export/photos/cat.jpg")
    """Picture to post."""

    sigterm: int = 100
    """How many times to stop the service."""

    sigkill: int = 20
    """How many times to kill its worker."""

    clients: int = 8
    """Clients that each send the next request when the last one is answered."""

    lame_duck: float = 0.5
    """Seconds in which the service still answers after SIGTERM (HALFTONE_LAME_DUCK)."""

    seed: int = 0
    """Of the moments of the signals."""

    output: Path | None = None
    """Path without its ending for the figures as JSON and Markdown, besides what is printed."""


@dataclass
class Stops:
    """What SIGTERM did, over all restarts."""

    answered: int = 0
    lost: int = 0
    refused: int = 0
    cut: int = 0
    """Requests whose sending was broken off."""

    statuses: Counter[int] = field(default_factory=Counter)
    exit_codes: Counter[int] = field(default_factory=Counter)
    late_ready: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass
class Kills:
    """What SIGKILL of the worker did."""

    seconds: list[float] = field(default_factory=list)
    """From each kill to the next 200 of /readyz."""

    lost: list[int] = field(default_factory=list)
    """Requests that each lost, sent whole or in part."""

    refused: int = 0
    """Connections that were refused, by all of them: they should wait for the next worker."""

    statuses: Counter[int] = field(default_factory=Counter)


def main(config: Restarts) -> int:
    """Measure and report; returns the exit code."""
    if not config.image.is_file() or config.sigterm < 0 or config.sigkill < 0 or config.clients < 2:
        print(
            f"error: --image {config.image} must be a picture, --clients 2 or more, the rest positive", file=sys.stderr
        )
        return 2
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
    """Start a server, load it for so many seconds, stop it, and add to `stops` what came of it."""
    with started(HALFTONE_LAME_DUCK=str(config.lame_duck)) as server:
        server.until_ready()
        # Each client keeps to one kind of request, so that a kept connection is not ended by the client.
        crowds = [ThreadedClients(server.port, [request], config.clients // 2) for request in requests]
        for crowd in crowds:
            crowd.start()
        time.sleep(seconds)
        begin = time.monotonic()
        os.kill(server.process.pid, signal.SIGTERM)
        stops.late_ready += _late_ready(server)
        stops.exit_codes[server.process.wait(timeout=STOP_SECONDS)] += 1
        stops.seconds.append(time.monotonic() - begin)
        for crowd in crowds:
            crowd.stop()
            stops.answered += crowd.count("answered")
            stops.lost += crowd.count("lost")
            stops.refused += crowd.count("refused")
            stops.cut += crowd.count("cut")
            stops.statuses.update(crowd.statuses())


def kill_workers(requests: list[bytes], config: Restarts, moments: random.Random) -> Kills:
    """Kill the worker of one loaded server again and again."""
    kills = Kills()
    with started() as server:
        server.until_ready()
        crowds = [ThreadedClients(server.port, [request], config.clients // 2) for request in requests]
        for crowd in crowds:
            crowd.start()
        for _ in range(config.sigkill):
            time.sleep(moments.uniform(0.2, 0.8))
            before = _lost(crowds)
            begin = time.monotonic()
            worker(server.process.pid).kill()
            # The next one has its own process id: the old one can't be asked by mistake.
            _until_ready(server)
            kills.seconds.append(time.monotonic() - begin)
            kills.lost.append(_lost(crowds) - before)
        for crowd in crowds:
            crowd.stop()
            kills.refused += crowd.count("refused")
            kills.statuses.update(crowd.statuses())
    return kills


def _lost(crowds: list[ThreadedClients]) -> int:
    return sum(crowd.count("lost") + crowd.count("cut") for crowd in crowds)


def worker(supervisor: int) -> psutil.Process:
    """The process that answers."""
    for child in psutil.Process(supervisor).children():
        if "_bentoml_impl.worker" in " ".join(child.cmdline()):
            return child
    raise RuntimeError("the server has no worker")


def status_of(port: int, path: str) -> int:
    """HTTP status of a GET; 0 where the connection is refused or ends."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=STOP_SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _late_ready(server: Server) -> int:
    """How many times /readyz says 200 until it is refused, from a little after the signal on."""
    time.sleep(NOTICE_SECONDS)
    count = 0
    while (status := status_of(server.port, "/readyz")) != 0:
        count += status == 200
        time.sleep(_POLL)
    return count


def _until_ready(server: Server) -> None:
    end = time.monotonic() + READY_SECONDS
    for _ in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
        if status_of(server.port, "/readyz") == 200:
            return
        time.sleep(_POLL)
    raise RuntimeError(f"no worker was ready within {READY_SECONDS} s")


def _stop_figures(stops: Stops, config: Restarts) -> list[Figure]:
    other = sum(number for status, number in stops.statuses.items() if status != 200)
    wrong = sum(number for code, number in stops.exit_codes.items() if code)
    return [
        Figure("SIGTERM under load", config.sigterm),
        Figure("accepted requests answered 200", stops.statuses[200]),
        Figure("accepted requests lost", stops.lost, "0", stops.lost == 0),
        Figure("accepted requests answered otherwise", other, "0", other == 0),
        Figure("connections refused after the door was shut", stops.refused),
        Figure("requests broken off while they were sent", stops.cut),
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
        Figure("connections refused meanwhile", kills.refused, "0", kills.refused == 0),
        Figure("requests answered otherwise than 200", other, "0", other == 0),
    ]


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Restarts, prog="python -m loadtest.restarts")))
