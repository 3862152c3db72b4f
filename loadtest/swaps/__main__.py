"""`python -m loadtest.swaps`: replace a model again and again while it serves, and look at every single answer.

Starts `bentoml serve` on a copy of a bundle, lets clients ask without a pause by every way that there is, and meanwhile
swaps versions in: good ones, some of them rolled back, and bad ones, each spoilt in another way. Every version's
temperature differs, so an answer tells by its probabilities which one made it. No request may fail, and none may be
answered by a version that was not in charge. About 2 s a swap on two cores; exit code 1 where anything went wrong.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from dataclasses import dataclass
from itertools import cycle, zip_longest
from pathlib import Path

import psutil
import tyro

from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import RefusedError, Server, started
from loadtest.swaps.bundles import BAD, Bundle
from loadtest.swaps.checks import judge, latency, loading
from loadtest.swaps.clients import Clients, ways
from loadtest.swaps.operator import Operator, UnexpectedError

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
    """File for the figures, as JSON and as Markdown (.json and .md)."""


def main(config: Swapping) -> int:
    """Swap and print; returns the exit code."""
    problem = _problem(config)
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return measure(config).report(config.output)


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


def measure(config: Swapping) -> Findings:
    """Serve, ask, swap, and judge."""
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(dir=config.artifacts.parent, prefix=".swaps.") as folder:
        bundle = Bundle(config.artifacts / config.model, Path(folder) / config.model)
        bundle.write(0)
        settings = {"HALFTONE_ARTIFACTS": folder, "HALFTONE_MODEL": config.model, "HALFTONE_ADMIN_TOKEN": token}
        with started(**settings, HALFTONE_LOG_REQUESTS="0") as server:
            return _measured(config, Operator(server, token, bundle))


def _measured(config: Swapping, operator: Operator) -> Findings:
    server, picture = operator.server, config.image.read_bytes()
    answer = server.first_answer(picture)
    operator.begin(answer)
    done: list[str] = []
    memory: list[float] = []
    problem = ""
    with Clients(server, ways(config.model, picture), config.clients) as clients:
        try:
            for step in plan(config.swaps, config.bad, config.rollbacks):
                _take(operator, step)
                done.append(step)
                memory.append(_resident(server) / MIB)
        except UnexpectedError as error:
            problem = str(error)
    figures = [
        Figure("swaps", len(done), str(config.swaps), len(done) == config.swaps),
        Figure("new versions loaded", done.count("load")),
        Figure("rollbacks", done.count("rollback")),
        Figure("bad bundles refused", sum(step in BAD for step in done)),
        *([Figure("unexpected answer to the operator", problem, "none", False)] if problem else []),
        *judge(clients.samples, operator.reigns),
        *loading(operator.loads),
        *latency(clients.samples, operator.loads),
        # From the third swap on as many models are loaded as ever after.
        *([Figure(f"resident MiB after swap {n}", round(memory[n - 1])) for n in (3, len(done))] if done[2:] else []),
    ]
    setting = {"model": answer["model"], "variant": answer["variant"], "clients": config.clients}
    return Findings("Hot swaps under load", figures, setting)


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


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Swapping, prog="python -m loadtest.swaps")))
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
