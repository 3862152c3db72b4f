"""`python -m loadtest.coldstart`: time from process start to the first response with 200, and resident memory.

Starts `bentoml serve` several times on a free port of 127.0.0.1, posts one photograph until the response is 200, then
a hundred more, and reads the memory of the worker and of its supervisor. About 10 s per round.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest.reporting.cli import PHOTOS, JsonOutput, check_least, check_picture, check_writable, publish, run
from loadtest.servers.halftone import Server, started
from loadtest.servers.process import process_tree, resident_mib, unshared_mib


@dataclass(frozen=True, kw_only=True)
class ColdStart(JsonOutput):
    """Measure the cold start and the resident memory of the service."""

    image: Path = PHOTOS / "cat.jpg"
    """Picture to post."""

    rounds: int = 3
    """Number of starts of the server."""

    requests: int = 100
    """Requests between the first response and the reading of memory."""

    output: Path | None = None
    """File for the figures as JSON, in addition to the printed table."""

    def __post_init__(self) -> None:
        check_least(self, 1, "rounds")
        check_least(self, 0, "requests")
        check_picture(self.image, "--image")
        if self.output is not None:
            check_writable(self.output, "--output")


def main(config: ColdStart) -> int:
    """Measure, print the figures, write them to `output`, and return the exit code."""
    picture = config.image.read_bytes()
    rounds = [_round(picture, config.requests) for _ in range(config.rounds)]
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("bentoml", "openvino", "numpy", "pillow")},
        "variant": rounds[0].pop("variant"),
        **{name: _summary([float(each[name]) for each in rounds]) for name in rounds[0]},
    }
    publish(report)
    for name, value in report.items():
        print(f"{name:<28}{value}")
    if config.output is not None:
        config.output.parent.mkdir(parents=True, exist_ok=True)
        config.output.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _round(picture: bytes, requests: int) -> dict[str, Any]:
    start = time.perf_counter()
    with started() as server:
        first = server.first_answer(picture)
        seconds = time.perf_counter() - start
        for _ in range(requests):
            server.classify(picture)
        return {"variant": first["variant"], "first_answer_s": seconds} | _memory(server)


def _memory(server: Server) -> dict[str, float]:
    """Return resident memory in MiB: the workers' total (`rss`) and unshared part (`uss`), and the supervisor's."""
    workers = server.workers()
    return {
        "worker_rss_mib": resident_mib(workers),
        "worker_uss_mib": unshared_mib(workers),
        "supervisor_rss_mib": resident_mib(process_tree(server.process.pid)[:1]),
    }


def _summary(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} (median; {min(values):.2f} to {max(values):.2f})"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    run(main, ColdStart, prog="python -m loadtest.coldstart", example="--rounds 3")
