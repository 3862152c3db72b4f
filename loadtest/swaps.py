"""`python -m loadtest.swaps`: replace a model again and again while it serves, and look at every single answer.

Starts `bentoml serve` on a copy of a bundle, lets clients ask without a pause by every way that there is, and meanwhile
swaps versions in: good ones, some of them rolled back, and bad ones, each spoilt in another way. Every version's
temperature differs, so an answer tells by its probabilities which one made it. No request may fail, and none may be
answered by a version that was not in charge. About 2 s a swap on two cores; exit code 1 where anything went wrong.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, zip_longest
from pathlib import Path
from typing import Any

import psutil
import tyro

from loadtest.server import RefusedError, Server, started
from loadtest.swapping.bundles import BAD, Bundle
from loadtest.swapping.clients import Clients, ways
from loadtest.swapping.judge import judge, latency
from loadtest.swapping.operator import Operator, UnexpectedError

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Swapping:
    """Swap a model under load."""

    swaps: int = 100
    """Swaps in all."""

    bad: int = 10
    """How many of them are of bad bundles, evenly spread."""

    rollbacks: int = 10
    """How many of them are rollbacks, evenly spread."""

    clients: int = 8
    """Clients that ask one request after the other."""

    model: str = "efficientnet_lite0"
    """Name of the bundle."""

    artifacts: Path = Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")
    """Folder of bundles; nothing in it is changed."""

    image: Path = Path("export/photos/cat.jpg")
    """Picture to post."""

    output: Path | None = None
    """File for the figures as JSON; a table in Markdown is written beside it."""


def main(config: Swapping) -> int:
    """Swap and print; returns the exit code."""
    problem = _problem(config)
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    report = measure(config)
    for name, value in report.items():
        print(f"{name:<30}{value}")
    if config.output is not None:
        config.output.write_text(json.dumps(report, indent=1) + "\n")
        config.output.with_suffix(".md").write_text(_markdown(report))
    faults = ("failed_requests", "wrong_version_answers", "answers_not_by_their_version", "unexpected")
    return 1 if any(report[name] for name in faults) else 0


def _problem(config: Swapping) -> str:
    if not (config.artifacts / config.model / "manifest.json").is_file():
        return f"there is no bundle {config.artifacts / config.model}: make it with `python -m export`"
    if not config.image.is_file():
        return f"--image {config.image}: no such file"
    if config.clients < 1 or min(config.bad, config.rollbacks) < 0 or config.bad + config.rollbacks >= config.swaps:
        return "--swaps must be more than --bad and --rollbacks together, and --clients 1 or more"
    return ""


def plan(swaps: int, bad: int, rollbacks: int) -> list[str]:
    """What to do in turn: `load`, `rollback`, or a kind of bad bundle; the first one is a load."""
    kinds = cycle(BAD)
    # Alternating for as long as there are both.
    pairs = zip_longest([next(kinds) for _ in range(bad)], ["rollback"] * rollbacks)
    others = [step for pair in pairs for step in pair if step]
    # Each in the middle of an equal share of the steps after the first one.
    places = {1 + (2 * index + 1) * (swaps - 1) // (2 * len(others)): step for index, step in enumerate(others)}
    return [places.get(place, "load") for place in range(swaps)]


def measure(config: Swapping) -> dict[str, Any]:
    """Serve, ask, swap, and judge."""
    token, picture = secrets.token_urlsafe(24), config.image.read_bytes()
    steps = plan(config.swaps, config.bad, config.rollbacks)
    with tempfile.TemporaryDirectory(dir=config.artifacts.parent, prefix=".swaps.") as folder:
        bundle = Bundle(config.artifacts / config.model, Path(folder) / config.model)
        bundle.write(0)
        settings = {"HALFTONE_ARTIFACTS": folder, "HALFTONE_MODEL": config.model, "HALFTONE_ADMIN_TOKEN": token}
        with started(**settings, HALFTONE_LOG_REQUESTS="0") as server:
            return _measured(config, steps, Operator(server, token, bundle), picture)


def _measured(config: Swapping, steps: list[str], operator: Operator, picture: bytes) -> dict[str, Any]:
    server, unexpected, memory = operator.server, "", []
    answer = server.first_answer(picture)
    operator.begin(answer)
    with Clients(server, ways(config.model, picture), config.clients) as clients:
        try:
            for step in steps:
                _take(operator, step)
                memory.append(_resident(server))
        except UnexpectedError as error:
            unexpected = str(error)
    return {
        **_conditions(answer),
        "clients": config.clients,
        "swaps": len(memory),
        "loads": steps[: len(memory)].count("load"),
        "rollbacks": steps[: len(memory)].count("rollback"),
        "refused_bad_bundles": sum(step in BAD for step in steps[: len(memory)]),
        "unexpected": unexpected,
        **judge(clients.samples, operator.reigns),
        **_seconds(operator.loads),
        **latency(clients.samples, operator.loads),
        # After the third swap as many models are loaded as ever after.
        "rss_mib_after_3_swaps": round(memory[min(3, len(memory)) - 1] / MIB, 1) if memory else 0.0,
        "rss_mib_at_the_end": round(memory[-1] / MIB, 1) if memory else 0.0,
    }


def _take(operator: Operator, step: str) -> None:
    if step == "load":
        operator.load()
    elif step == "rollback":
        operator.roll_back()
    else:
        operator.fail(step)


def _resident(server: Server) -> int:
    """Bytes of the process that answers: the largest child of the supervisor."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return max((child.memory_info().rss for child in children), default=0)


def _seconds(loads: list[tuple[float, float]]) -> dict[str, float]:
    times = sorted(end - start for start, end in loads)
    if not times:
        return {}
    return {"load_seconds_median": round(times[len(times) // 2], 2), "load_seconds_longest": round(times[-1], 2)}


def _conditions(answer: dict[str, Any]) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown"),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("bentoml", "openvino", "onnxruntime-gpu", "numpy")},
        "model": answer["model"],
        "variant": answer["variant"],
    }


def _markdown(report: dict[str, Any]) -> str:
    rows = "".join(f"| {name.replace('_', ' ')} | {value} |\n" for name, value in report.items())
    return f"# Hot swaps under load\n\n| | |\n|---|---|\n{rows}"


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Swapping, prog="python -m loadtest.swaps")))
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
