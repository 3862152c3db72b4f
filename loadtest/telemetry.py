"""`python -m loadtest.telemetry`: what metrics and log lines cost, as a ratio of requests a second with and without.

Starts the service twice, with both and with neither, and lets them answer in turn, round after round: only the ratio
within a round counts, as machines drift. Beside the requests a second, which need idle cores, it gives the requests per
second of processor time that the server used, which hardly depend on what else runs. One minute by default; at least
0.97 is the goal. Exit code 1 below it, and where a request failed.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import tyro

from loadtest.comparison import generator
from loadtest.comparison.load import Cell, Load
from loadtest.comparison.peer import INDEX
from loadtest.comparison.report import hardware, versions
from loadtest.server import Server, started

# Batches are off in both: each server measures for itself what they cost, and two that decide otherwise don't compare.
ON = {"HALFTONE_METRICS": "1", "HALFTONE_LOG_REQUESTS": "1", "HALFTONE_LOG_FORMAT": "json", "HALFTONE_BATCH": "1"}
OFF = {"HALFTONE_METRICS": "0", "HALFTONE_LOG_REQUESTS": "0", "HALFTONE_BATCH": "1"}


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One server's answers."""

    cell: Cell
    """What the generator counted."""

    cpu: float
    """Seconds of processor time that the server's processes used."""

    @property
    def per_cpu_second(self) -> float:
        """Requests answered with 200 per second of processor time."""
        return self.cell.requests / self.cpu if self.cpu else 0.0


@dataclass(frozen=True, kw_only=True)
class TelemetryCost:
    """Measure what metrics and log lines cost."""

    image: Path = Path("export/photos/cat.jpg")
    """Picture to post."""

    clients: int = 8
    """Clients that each send the next request when the last one is answered."""

    rounds: int = 10
    """How many times each of the two answers."""

    seconds: float = 2.0
    """Seconds of each turn."""

    goal: float = 0.97
    """Smallest acceptable ratio."""

    output: Path | None = None
    """File for the figures as JSON, besides what is printed."""


def main(config: TelemetryCost) -> int:
    """Measure and print; returns the exit code."""
    if not config.image.is_file() or config.rounds < 1 or config.clients < 1 or config.seconds <= 0:
        print(f"error: --image {config.image} must be a picture, the numbers positive", file=sys.stderr)
        return 2
    picture = config.image.read_bytes()
    with started(**ON) as with_:
        first = with_.first_answer(picture)
        right = int(first["predictions"][0]["index"])
        with started(**OFF, HALFTONE_VARIANT=first["variant"]) as without:
            without.first_answer(picture)
            turns = [_round(index, with_, without, picture, right, config) for index in range(-1, config.rounds)][1:]
    report = summary(turns) | {"variant": first["variant"]}
    report |= {
        "clients": config.clients,
        "seconds": config.seconds,
        "date": datetime.now(UTC).isoformat("T", "seconds"),
    }
    report |= {"hardware": hardware(), "versions": versions([])["here"]}
    for name, value in report.items():
        print(f"{name:<14}{value}")
    if config.output is not None:
        config.output.write_text(json.dumps(report, indent=1) + "\n")
    return int(report["ratio"] < config.goal or report["errors"] > 0)


def summary(turns: Sequence[tuple[Turn, Turn]]) -> dict[str, Any]:
    """The figures of all rounds, each a turn with telemetry and one without."""
    all_turns = [turn for pair in turns for turn in pair]
    rates = _ratios([(with_.cell.rate, without.cell.rate) for with_, without in turns])
    per_cpu = _ratios([(with_.per_cpu_second, without.per_cpu_second) for with_, without in turns])
    return {
        "ratio": round(statistics.median(rates), 4),
        "ratios": rates,
        "cpu_ratio": round(statistics.median(per_cpu), 4),
        "cpu_ratios": per_cpu,
        "with": f"{statistics.median(turn.cell.rate for turn, _ in turns):.1f} requests/s",
        "without": f"{statistics.median(turn.cell.rate for _, turn in turns):.1f} requests/s",
        "errors": sum(turn.cell.errors + turn.cell.wrong for turn in all_turns),
    }


def _ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return sorted(round(with_ / without, 4) if without else 0.0 for with_, without in pairs)


def _round(
    index: int, with_: Server, without: Server, picture: bytes, right: int, config: TelemetryCost
) -> tuple[Turn, Turn]:
    """Both answer once; who begins alternates, so that a drift of the machine favours neither."""
    order = [with_, without] if index % 2 else [without, with_]
    turns = {id(server): _turn(server, picture, right, config) for server in order}
    return turns[id(with_)], turns[id(without)]


def _cpu(server: Server) -> float:
    """Seconds of processor time of the worker and its supervisor so far."""
    parent = psutil.Process(server.process.pid)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _turn(server: Server, picture: bytes, right: int, config: TelemetryCost) -> Turn:
    lines = ("POST /classify HTTP/1.1", "Host: x", "Content-Type: image/jpeg", f"Content-Length: {len(picture)}")
    head = "".join(f"{line}\r\n" for line in (*lines, ""))
    load = Load(
        port=server.port,
        requests=[head.encode() + picture],
        expected=[right],
        answer=INDEX,
        clients=config.clients,
        seconds=config.seconds,
    )
    before = _cpu(server)
    cell = generator.run(load)
    return Turn(cell=cell, cpu=_cpu(server) - before)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(TelemetryCost, prog="python -m loadtest.telemetry")))
