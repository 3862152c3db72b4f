"""`python -m loadtest.coldstart`: how long a server takes from its start to its first right answer, and what it weighs.

Starts `bentoml serve` several times on a free port of 127.0.0.1, posts one photograph until it is answered with 200,
then a hundred more, and reads the memory of the process that answers and of its supervisor. About 10 s a round.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import tyro

POLL_SECONDS = 0.02
GIVE_UP_SECONDS = 60
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=os.environ
    )
    try:
        answer = _first_answer(process, port, picture)
        seconds = time.perf_counter() - start
        for _ in range(requests):
            _post(port, picture)
        return {"variant": answer["variant"], "first_answer_s": seconds} | _memory(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _first_answer(process: subprocess.Popen[bytes], port: int, picture: bytes) -> dict[str, Any]:
    end = time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < end and process.poll() is None:
        answer = _post(port, picture)
        if answer is not None:
            return answer
        time.sleep(POLL_SECONDS)
    print(f"error: no answer within {GIVE_UP_SECONDS} s: see what `bentoml serve` prints", file=sys.stderr)
    sys.exit(1)


def _post(port: int, picture: bytes) -> dict[str, Any] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/classify", picture, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        body = response.read()
        return dict(json.loads(body)) if response.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


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
