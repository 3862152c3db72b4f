"""`python -m loadtest.soak --minutes 10`: growth of memory, open files and threads under long load with odd images.

Starts `bentoml serve` and posts images of hundreds of odd sizes and formats, intact and broken, over kept and new
connections for `--minutes`, and samples the resources of the worker. Before that, the same check must detect the leak
of a test server that keeps 64 KiB per request. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

from loadtest.client.blocking import status_of
from loadtest.client.http1 import post
from loadtest.client.threaded import ThreadedClients
from loadtest.reporting.cli import JsonOutput, check_least, check_positive, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import started
from loadtest.servers.process import NotReadyError, free_port, server_process

MIB = 2**20
LEAK_KIB = 64
EDGE_SHARE = 0.2
"""Share of the samples, at the start and at the end, whose medians are compared."""

FLAT = 2
"""Tolerated increase of files and threads: a connection may be open in one sample and not in another."""

_EVERY = 0.25


@dataclass(frozen=True, kw_only=True)
class Soak(JsonOutput):
    """Load the service for a long time with odd images."""

    minutes: float = 10.0
    """Minutes of load after the warm-up."""

    warm_up: float = 60.0
    """Seconds of the same load before the first sample, in which libraries allocate their buffers."""

    clients: int = 4
    """Clients that each send the next request after the last response."""

    pictures: int = 300
    """Number of different pictures."""

    most_growth: float = 20.0
    """Tolerated growth of memory in MiB."""

    leak_seconds: float = 10.0
    """Seconds of load on the leaky test server."""

    seed: int = 0
    """Seed of the generated pictures."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_positive(self, "minutes", "leak_seconds", "most_growth")
        check_least(self, 0, "warm_up")
        check_least(self, 1, "pictures", "clients")


@dataclass(frozen=True)
class Sample:
    """Resources of a process at one moment."""

    memory: float
    """Resident MiB."""

    files: int
    """Open file descriptors."""

    threads: int


@dataclass(frozen=True)
class Growth:
    """Median of the last samples minus the median of the first ones."""

    memory: float
    files: float
    threads: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Growth:
        """Return the growth over at least two samples in order of time."""
        edge = max(1, round(EDGE_SHARE * len(samples)))

        def growth(values: list[float]) -> float:
            return statistics.median(values[-edge:]) - statistics.median(values[:edge])

        return cls(
            growth([each.memory for each in samples]),
            growth([each.files for each in samples]),
            growth([each.threads for each in samples]),
        )

    def figures(self, most: float) -> list[Figure]:
        """Return the figures with their goals; `most`: tolerated growth of memory in MiB."""
        return [
            # Plus 0, so that a small decrease isn't -0.0.
            Figure("memory growth (MiB)", round(self.memory, 1) + 0.0, f"below {most:g}", self.memory < most),
            Figure("growth of open files", self.files, f"at most {FLAT}", self.files <= FLAT),
            Figure("growth of threads", self.threads, f"at most {FLAT}", self.threads <= FLAT),
        ]


def main(config: Soak) -> int:
    """Measure and report; return the exit code."""
    leak = find_leak(config.leak_seconds)
    detected = any(not figure.holds for figure in leak.figures(config.most_growth))
    self_test = Figure("leak of 64 KiB per request (MiB)", round(leak.memory, 1), "detected", detected)
    setting = {"minutes": config.minutes, "clients": config.clients, "pictures": config.pictures, "seed": config.seed}
    return Findings("Soak test with odd pictures", [self_test, *soak(config)], setting).report(config.output)


def soak(config: Soak) -> list[Figure]:
    """Load the service, and compare its resources at the end with those after the warm-up."""
    requests = [
        post("/classify", picture, keep_alive=random.Random(index).random() < 0.8)
        for index, picture in enumerate(odd_pictures(config.pictures, config.seed))
    ]
    with started() as server:
        server.wait_until_ready()
        process = server.worker()
        clients = ThreadedClients(server.port, requests, config.clients)
        clients.start()
        time.sleep(config.warm_up)
        samples = _watch(process, 60 * config.minutes, scrape=server.port)
        clients.stop()
    statuses = clients.statuses()
    failed = sum(number for status, number in statuses.items() if status >= 500)
    lost = sum(clients.counts.values()) - sum(statuses.values())
    return [
        Figure("responses", sum(statuses.values())),
        Figure("5xx responses, and requests without a response", failed + lost, "0", failed + lost == 0),
        Figure("memory after the warm-up (MiB)", round(samples[0].memory, 1)),
        *Growth.of(samples).figures(config.most_growth),
    ]


def find_leak(seconds: float) -> Growth:
    """Return the growth of a test server that leaks, measured in the same way."""
    with _leaky() as (process, port):
        clients = ThreadedClients(port, [post("/", b"x" * 1000, keep_alive=True)], 2)
        clients.start()
        samples = _watch(process, seconds)
        clients.stop()
    return Growth.of(samples)


def odd_pictures(number: int, seed: int) -> Iterator[bytes]:
    """Yield JPEG, PNG and WebP files with sides of 1 to 2,000 pixels; one in ten is truncated, one in twenty noise."""
    chance = random.Random(seed)
    for _ in range(number):
        # Most are small: a large one costs a hundred times as much.
        width, height = (max(1, round(2000 * chance.random() ** 3)) for _ in range(2))
        mode = chance.choice(["RGB", "RGB", "L", "RGBA"])
        picture = Image.effect_noise((width, height), chance.uniform(5, 80)).convert(mode)
        form = chance.choice(["JPEG", "PNG", "WEBP"]) if mode != "RGBA" else "PNG"
        memory = io.BytesIO()
        picture.save(memory, form)
        data = memory.getvalue()
        kind = chance.random()
        if kind < 0.05:
            yield chance.randbytes(chance.randint(1, 50_000))
        else:
            yield data[: chance.randint(1, len(data))] if kind < 0.15 else data


def _watch(process: psutil.Process, seconds: float, *, scrape: int | None = None) -> list[Sample]:
    """Return samples of a process; also read the metrics of the server on port `scrape`, as in production."""
    samples: list[Sample] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(samples) < 2:
        if scrape is not None:
            status_of(scrape, "/metrics")
        with process.oneshot():
            memory = process.memory_info().rss / MIB
            samples.append(Sample(memory, process.num_fds(), process.num_threads()))
        time.sleep(_EVERY)
    return samples


@contextlib.contextmanager
def _leaky() -> Iterator[tuple[psutil.Process, int]]:
    def respond() -> None:
        if status_of(port, "/") == 0:
            raise NotReadyError("no response")

    port = free_port()
    command = [sys.executable, "-m", "loadtest.servers.leaky", str(port), str(LEAK_KIB)]
    with server_process(command, os.environ, port) as server:
        server.wait_until(respond)
        yield psutil.Process(server.process.pid), port


if __name__ == "__main__":
    run(main, Soak, prog="python -m loadtest.soak", example="--minutes 10")
