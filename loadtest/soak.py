"""`python -m loadtest.soak --minutes 10`: whether memory, files and threads of the service stay flat over odd pictures.

Starts `bentoml serve` and asks it about pictures of hundreds of odd sizes and formats, whole and broken, over old and
new connections, for as long as it is told, and reads what its worker holds. Before that, the same check must find a
server that keeps 64 KiB a request. Exit code 1 where a goal was missed.
"""

from __future__ import annotations

import contextlib
import io
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro
from PIL import Image

from loadtest.client.threaded import ThreadedClients, post
from loadtest.reporting.figures import Figure, Findings
from loadtest.restarts import status_of, worker
from loadtest.servers.halftone import started

MIB = 2**20
LEAK_KIB = 64
EDGE_SHARE = 0.2
"""Share of the samples at either end whose medians are compared."""

FLAT = 2
"""Files and threads more than before that are no growth: a connection may be there at one moment and not at another."""

_EVERY = 0.25


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Load the service for long."""

    minutes: float = 10.0
    """How long, after the warm-up."""

    warm_up: float = 60.0
    """Seconds of the same load before the first sample: libraries make their buffers then."""

    clients: int = 4
    """Clients that each send the next request when the last one is answered."""

    pictures: int = 300
    """Different pictures."""

    most_growth: float = 20.0
    """MiB that the memory may grow."""

    leak_seconds: float = 10.0
    """How long the leaky server is watched."""

    seed: int = 0
    """Of the pictures."""

    output: Path | None = None
    """Path without its ending for the figures as JSON and Markdown, besides what is printed."""


@dataclass(frozen=True)
class Sample:
    """What a process holds at one moment."""

    memory: float
    """Resident MiB."""

    files: int
    """Open file descriptors."""

    threads: int
    """Threads."""


@dataclass(frozen=True)
class Growth:
    """The median of the last samples less that of the first ones."""

    memory: float
    files: float
    threads: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Growth:
        """From at least two samples in the order of time."""
        edge = max(1, round(EDGE_SHARE * len(samples)))

        def growth(values: list[float]) -> float:
            return statistics.median(values[-edge:]) - statistics.median(values[:edge])

        return cls(
            growth([each.memory for each in samples]),
            growth([each.files for each in samples]),
            growth([each.threads for each in samples]),
        )

    def figures(self, most: float) -> list[Figure]:
        """With their goals."""
        return [
            Figure("memory growth (MiB)", round(self.memory, 1), f"below {most:g}", self.memory < most),
            Figure("growth of open files", self.files, f"at most {FLAT}", self.files <= FLAT),
            Figure("growth of threads", self.threads, f"at most {FLAT}", self.threads <= FLAT),
        ]


def main(config: Soak) -> int:
    """Measure and report; returns the exit code."""
    if min(config.minutes, config.leak_seconds, config.clients, config.pictures) <= 0 or config.warm_up < 0:
        print("error: times and numbers must be positive", file=sys.stderr)
        return 2
    leak = find_leak(config.leak_seconds)
    found = any(not figure.holds for figure in leak.figures(config.most_growth))
    self_test = Figure("found in a server that keeps 64 KiB a request (MiB)", round(leak.memory, 1), "found", found)
    setting = {"minutes": config.minutes, "clients": config.clients, "pictures": config.pictures, "seed": config.seed}
    return Findings("Long life under odd pictures", [self_test, *soak(config)], setting).report(config.output)


def soak(config: Soak) -> list[Figure]:
    """Load the service, and compare what it holds at the end with what it held after the warm-up."""
    requests = [
        post("/classify", picture, keep_alive=random.Random(index).random() < 0.8)
        for index, picture in enumerate(odd_pictures(config.pictures, config.seed))
    ]
    with started() as server:
        server.until_ready()
        process = worker(server.process.pid)
        crowd = ThreadedClients(server.port, requests, config.clients)
        crowd.start()
        time.sleep(config.warm_up)
        samples = _watch(process, 60 * config.minutes, scrape=server.port)
        crowd.stop()
    statuses = crowd.statuses()
    failed = sum(number for status, number in statuses.items() if status >= 500)
    lost = sum(crowd.counts.values()) - sum(statuses.values())
    return [
        Figure("requests answered", sum(statuses.values())),
        Figure("answers of 5xx, and requests without an answer", failed + lost, "0", failed + lost == 0),
        Figure("memory after the warm-up (MiB)", round(samples[0].memory, 1)),
        *Growth.of(samples).figures(config.most_growth),
    ]


def find_leak(seconds: float) -> Growth:
    """What the same check says of a server that keeps memory."""
    with _leaky() as (process, port):
        crowd = ThreadedClients(port, [post("/", b"x" * 1000, keep_alive=True)], 2)
        crowd.start()
        samples = _watch(process, seconds)
        crowd.stop()
    return Growth.of(samples)


def odd_pictures(number: int, seed: int) -> Iterator[bytes]:
    """JPEG, PNG and WebP files with sides of 1 to 2,000 pixels; one in ten is cut short, one in twenty is noise."""
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
    """Samples of a process; `scrape` is the port of a server whose metrics are read meanwhile, as in practice."""
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "loadtest.leaky", str(port), str(LEAK_KIB)])
    try:
        while process.poll() is None and status_of(port, "/") == 0:
            time.sleep(_EVERY)
        yield psutil.Process(process.pid), port
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Soak, prog="python -m loadtest.soak")))
