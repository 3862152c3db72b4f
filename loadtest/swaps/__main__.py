"""`python -m loadtest.swaps`: hot-swap a model repeatedly under load and check every response.

Starts `bentoml serve` on a copy of a bundle and swaps its versions while clients send requests over every route
without a pause: valid versions, some of them rolled back, and invalid bundles of ten kinds. Every version has its own
temperature, so the probabilities in a response show which version computed it. No request may fail, and no response
may come from an inactive version. With `--canaries`, candidates are then tried out by the rule of docs/canary.md, some
of them faulty. About 2 s per swap, and half a minute per good canary, on two cores. Exit code 1 if a check fails.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, zip_longest
from pathlib import Path

from loadtest.client.routes import Clients, Sample, routes
from loadtest.reporting.cli import PHOTOS, CompareError, JsonOutput, check_least, check_picture, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.bundles import BAD, Bundle
from loadtest.servers.halftone import RefusedError, Server, no_bundle, started, started_faulty
from loadtest.servers.operator import Operator, UnexpectedError
from loadtest.servers.process import process_tree, resident_mib
from loadtest.servers.versions import check_samples, latency, load_times
from loadtest.swaps.canaries import RATE, Canaries, canary_sequence


@dataclass(frozen=True, kw_only=True)
class Swaps(JsonOutput):
    """Hot-swap a model under load."""

    swaps: int = 100
    """Total number of swaps."""

    bad: int = 10
    """Number of these swaps with an invalid bundle, evenly spread."""

    rollbacks: int = 10
    """Number of these swaps that are rollbacks, evenly spread."""

    canaries: int = 0
    """Number of candidates to try out after the swaps."""

    bad_canaries: int = 0
    """Number of these candidates that are faulty (wrong labels, failing, NaN, slower, less sure), evenly spread."""

    clients: int = 8
    """Clients that send one request after the other."""

    model: str = "efficientnet_lite0"
    """Name of the bundle."""

    artifacts: Path = Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")
    """Folder of bundles, which stays unchanged."""

    image: Path = PHOTOS / "cat.jpg"
    """Picture to post."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_least(self, 1, "clients")
        check_least(self, 0, "bad", "rollbacks", "canaries", "bad_canaries")
        if self.bad_canaries > self.canaries:
            raise CompareError(f"--bad-canaries must be at most --canaries, not {self.bad_canaries}")
        if self.bad + self.rollbacks >= self.swaps:
            raise CompareError(f"--swaps must be more than --bad and --rollbacks together, not {self.swaps}")
        check_picture(self.image, "--image")


def main(config: Swaps) -> int:
    """Measure and report; return the exit code."""
    if not (config.artifacts / config.model / "manifest.json").is_file():
        raise CompareError(f"--model {config.model}: {no_bundle(config.model, config.artifacts)}")
    return measure(config).report(config.output)


def swap_sequence(swaps: int, bad: int, rollbacks: int) -> list[str]:
    """Return the steps in order: `load` (always the first), `rollback`, or a kind of invalid bundle."""
    kinds = cycle(BAD)
    # Alternate between the two while both are left.
    pairs = zip_longest([next(kinds) for _ in range(bad)], ["rollback"] * rollbacks)
    others = [step for pair in pairs for step in pair if step]
    # Spread evenly: each in the middle of an equal share of the steps after the first one.
    places = {1 + (2 * index + 1) * (swaps - 1) // (2 * len(others)): step for index, step in enumerate(others)}
    return [places.get(place, "load") for place in range(swaps)]


def measure(config: Swaps) -> Findings:
    """Serve a copy of the bundle, swap it under load, and return the figures."""
    token = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(dir=config.artifacts.parent, prefix=".swaps.") as folder:
        bundle = Bundle(config.artifacts / config.model, Path(folder) / config.model)
        bundle.write(0)
        settings = {"HALFTONE_ARTIFACTS": folder, "HALFTONE_MODEL": config.model, "HALFTONE_ADMIN_TOKEN": token}
        start = started_faulty if config.canaries else started
        with start(**settings, HALFTONE_LOG_REQUESTS="0") as server:
            return _swap_under_load(config, Operator(server, token, bundle))


def _swap_under_load(config: Swaps, operator: Operator) -> Findings:
    server, picture = operator.server, config.image.read_bytes()
    first = server.first_answer(picture)
    operator.record_first(first["version"])
    done: list[str] = []
    memory: list[float] = []
    canaries = Canaries(operator, config.artifacts / config.model)
    planned = canary_sequence(config.canaries, config.bad_canaries)
    samples: list[Sample] = []
    problem = ""
    every = routes(config.model, picture)
    try:
        with _recorded(Clients(server.port, every, config.clients), samples):
            for step in swap_sequence(config.swaps, config.bad, config.rollbacks):
                _run_step(operator, step)
                done.append(step)
                memory.append(_resident(server))
        if planned:
            with _recorded(Clients(server.port, every, config.clients, rate=RATE), samples):
                for kind in planned:
                    canaries.try_out(kind)
    except UnexpectedError as error:
        problem = str(error)
    figures = [
        Figure("swaps", len(done), str(config.swaps), len(done) == config.swaps),
        Figure("new versions loaded", done.count("load")),
        Figure("rollbacks", done.count("rollback")),
        Figure("invalid bundles refused", sum(step in BAD for step in done)),
        *(canaries.figures(planned, samples) if planned else []),
        *([Figure("wrong response of /admin", problem, "none", False)] if problem else []),
        *check_samples(samples, operator.intervals, canaries.trials),
        *load_times(operator.loads),
        *latency(samples, operator.loads),
        # The number of loaded models is constant from the third swap on.
        *([Figure(f"resident MiB after swap {n}", round(memory[n - 1])) for n in (3, len(done))] if done[2:] else []),
    ]
    setting = {"model": first["model"], "variant": first["variant"], "clients": config.clients}
    return Findings("Hot swaps under load", figures, setting)


@contextlib.contextmanager
def _recorded(clients: Clients, samples: list[Sample]) -> Iterator[None]:
    """Let clients send requests during the block, and add their samples at its end."""
    try:
        with clients:
            yield
    finally:
        samples += clients.samples


def _run_step(operator: Operator, step: str) -> None:
    if step == "load":
        operator.load()
    elif step == "rollback":
        operator.roll_back()
    else:
        operator.load_invalid(step)


def _resident(server: Server) -> float:
    """Return the resident bytes of the worker: the largest child of the supervisor."""
    return max((resident_mib([child]) for child in process_tree(server.process.pid)[1:]), default=0.0)


def _main(config: Swaps) -> int:
    try:
        return main(config)
    except RefusedError as error:
        raise CompareError(str(error)) from None


if __name__ == "__main__":
    run(_main, Swaps, prog="python -m loadtest.swaps", example="--model photos --swaps 40")
