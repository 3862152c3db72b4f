"""`python -m loadtest.telemetry`: what metrics, log lines and traces cost, as ratios of requests a second.

Starts the service four times: with none of them, with metrics and log lines, and with these and traces of every
request or of none, which go to a receiver in this process. They answer in turn, round after round: only the ratio
within a round counts, as machines drift. Beside the requests a second, which need idle cores, it gives the requests per
second of processor time that the server used, which hardly depend on what else runs. Two minutes by
default; at least 0.97 is the goal of each. Exit code 1 below it, and where a request failed or no trace arrived.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import tyro

from loadtest.client import connection as generator
from loadtest.client.load import Cell, Load
from loadtest.reporting.tables import hardware, versions
from loadtest.servers.halftone import Server, started
from loadtest.servers.otlp_sink import sink
from loadtest.servers.peer import INDEX

# Batches are off in all: each server measures for itself what they cost, and two that decide otherwise don't compare.
ON = {"HALFTONE_METRICS": "1", "HALFTONE_LOG_REQUESTS": "1", "HALFTONE_LOG_FORMAT": "json", "HALFTONE_BATCH": "1"}
TRACED = {"traced": "1", "sampled_out": "0"}
"""The servers that trace: name to the share of requests."""

OFF = {"HALFTONE_METRICS": "0", "HALFTONE_LOG_REQUESTS": "0", "HALFTONE_BATCH": "1"}


WITHOUT = "without"


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
    """How many times each of them answers."""

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
    with contextlib.ExitStack() as stack:
        servers = {"with": stack.enter_context(started(**ON))}
        first = servers["with"].first_answer(picture)
        variant = {"HALFTONE_VARIANT": first["variant"]}
        sinks = {name: stack.enter_context(sink()) for name in TRACED}
        for name, share in TRACED.items():
            traces = {"HALFTONE_TRACE_ENDPOINT": sinks[name].url, "HALFTONE_TRACE_SAMPLE": share}
            servers[name] = stack.enter_context(started(**ON, **variant, **traces))
        servers[WITHOUT] = stack.enter_context(started(**OFF, **variant))
        for server in servers.values():
            server.first_answer(picture)
        right = int(first["predictions"][0]["index"])
        turns = [_round(index, servers, picture, right, config) for index in range(-1, config.rounds)][1:]
    report = summary(turns) | {"variant": first["variant"]}
    report["exports"] = {name: each.posts for name, each in sinks.items()}
    report["goal"] = {
        name: ("reached" if report[name]["ratio"] >= config.goal else "not reached") + f": at least {config.goal:g}"
        for name in servers
        if name != WITHOUT
    }
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
    missed = any(verdict.startswith("not") for verdict in report["goal"].values())
    return int(missed or report["errors"] > 0 or report["exports"]["traced"] == 0)


def summary(turns: Sequence[Mapping[str, Turn]]) -> dict[str, Any]:
    """The figures of all rounds, each a turn of every server, by its name."""
    return {
        **{name: _compared(turns, name) for name in turns[0]},
        "errors": sum(turn.cell.errors + turn.cell.wrong for each in turns for turn in each.values()),
    }


def _compared(turns: Sequence[Mapping[str, Turn]], name: str) -> dict[str, Any]:
    """One server against the one without telemetry."""
    rates = _ratios([(each[name].cell.rate, each[WITHOUT].cell.rate) for each in turns])
    per_cpu = _ratios([(each[name].per_cpu_second, each[WITHOUT].per_cpu_second) for each in turns])
    return {
        "ratio": round(statistics.median(rates), 4),
        "cpu_ratio": round(statistics.median(per_cpu), 4),
        "requests_per_second": round(statistics.median(each[name].cell.rate for each in turns), 1),
        "ratios": rates,
        "cpu_ratios": per_cpu,
    }


def _ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return sorted(round(with_ / without, 4) if without else 0.0 for with_, without in pairs)


def _round(
    index: int, servers: Mapping[str, Server], picture: bytes, right: int, config: TelemetryCost
) -> dict[str, Turn]:
    """All answer once; the order alternates, so that a drift of the machine favours none."""
    order = list(servers) if index % 2 else list(servers)[::-1]
    return {name: _turn(servers[name], picture, right, config) for name in order}


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
