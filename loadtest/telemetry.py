"""`python -m loadtest.telemetry`: what metrics and log lines cost, as a ratio of requests a second with and without.

Starts the service twice, with both and with neither, and lets them answer in turn, round after round, on otherwise idle
cores: only the ratio within a round counts, as machines drift. 45 s by default; at least 0.97 is the goal. Exit code 1
below it, and where a request failed.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tyro

from loadtest.comparison import generator
from loadtest.comparison.load import Cell, Load
from loadtest.comparison.peer import INDEX
from loadtest.comparison.report import hardware, versions
from loadtest.server import Server, started

ON = {"HALFTONE_METRICS": "1", "HALFTONE_LOG_REQUESTS": "1", "HALFTONE_LOG_FORMAT": "json"}
OFF = {"HALFTONE_METRICS": "0", "HALFTONE_LOG_REQUESTS": "0"}


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
    with started(**ON) as with_, started(**OFF) as without:
        right = int(with_.first_answer(picture)["predictions"][0]["index"])
        without.first_answer(picture)
        turns = [_round(index, with_, without, picture, right, config) for index in range(-1, config.rounds)][1:]
    report = summary(turns)
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


def summary(turns: list[tuple[Cell, Cell]]) -> dict[str, Any]:
    """The figures of all rounds, each a turn with telemetry and one without."""
    ratios = sorted(with_.rate / without.rate if without.rate else 0.0 for with_, without in turns)
    cells = [cell for turn in turns for cell in turn]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "with": f"{statistics.median(turn[0].rate for turn in turns):.1f} requests/s",
        "without": f"{statistics.median(turn[1].rate for turn in turns):.1f} requests/s",
        "errors": sum(cell.errors + cell.wrong for cell in cells),
    }


def _round(
    index: int, with_: Server, without: Server, picture: bytes, right: int, config: TelemetryCost
) -> tuple[Cell, Cell]:
    """Both answer once; who begins alternates, so that a drift of the machine favours neither."""
    order = [with_, without] if index % 2 else [without, with_]
    cells = {id(server): _turn(server, picture, right, config) for server in order}
    return cells[id(with_)], cells[id(without)]


def _turn(server: Server, picture: bytes, right: int, config: TelemetryCost) -> Cell:
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
    return generator.run(load)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(TelemetryCost, prog="python -m loadtest.telemetry")))
