"""`python -m loadtest.coldstart`: how long a server takes from its start to its first right answer, and what it weighs.

Starts `bentoml serve` several times on a free port of 127.0.0.1, posts one photograph until it is answered with 200,
then a hundred more, and reads the memory of the process that answers and of its supervisor. About 10 s a round.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import tyro

from loadtest.servers.halftone import started

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """Measure the cold start and the resident memory of the service."""

    image: Path = Path("export/photos/cat.jpg")
    """Picture to post."""

    rounds: int = 3
    """How many times to start the server."""

    requests: int = 100
    """Requests after the first answer, before memory is read."""

    output: Path | None = None
    """File for the figures as JSON, besides the table that is printed."""


def main(config: ColdStart) -> None:
    """Measure and print."""
    if not config.image.is_file() or config.rounds < 1 or config.requests < 0:
        print(f"error: --image {config.image} must be a picture, --rounds 1 or more", file=sys.stderr)
        sys.exit(2)
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
    for name, value in report.items():
        print(f"{name:<28}{value}")
    if config.output is not None:
        config.output.write_text(json.dumps(report, indent=1) + "\n")


def _round(picture: bytes, requests: int) -> dict[str, Any]:
    start = time.perf_counter()
    with started() as server:
        answer = server.first_answer(picture)
        seconds = time.perf_counter() - start
        for _ in range(requests):
            server.classify(picture)
        return {"variant": answer["variant"], "first_answer_s": seconds} | _memory(server.process.pid)


def _memory(supervisor: int) -> dict[str, float]:
    """Resident memory in MiB: of the workers (`rss`), what is theirs alone (`uss`), and of the supervisor."""
    parent = psutil.Process(supervisor)
    workers = [
        child for child in parent.children(recursive=True) if "_bentoml_impl.worker" in " ".join(child.cmdline())
    ]
    return {
        "worker_rss_mib": sum(worker.memory_info().rss for worker in workers) / MIB,
        "worker_uss_mib": sum(worker.memory_full_info().uss for worker in workers) / MIB,
        "supervisor_rss_mib": parent.memory_info().rss / MIB,
    }


def _summary(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} (median; {min(values):.2f} to {max(values):.2f})"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main(tyro.cli(ColdStart, prog="python -m loadtest.coldstart"))
