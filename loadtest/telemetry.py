"""`python -m loadtest.telemetry`: cost of metrics, log lines and traces, as ratios of requests per second.

Starts the service four times: without telemetry, with metrics and log lines, and with these plus traces of every
request or of none, sent to a receiver in this process. The servers are loaded in turn, round after round: only ratios
within a round are compared, because the machine's speed drifts. Next to requests per second, which need idle cores,
the report gives requests per second of the server's CPU time, which depend little on other processes. Takes two
minutes by default; the goal of each ratio is at least 0.97. Exit code 1 if a ratio is below the goal, a request failed
or no trace arrived.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtest.client import closed_loop
from loadtest.client.load import Cell, Load
from loadtest.reporting.cli import PHOTOS, JsonOutput, check_least, check_picture, check_positive, publish, run
from loadtest.reporting.host import hardware, versions
from loadtest.reporting.intervals import ratio_interval, tie
from loadtest.servers.halftone import Server, started
from loadtest.servers.otlp_sink import sink
from loadtest.servers.peer import INDEX
from loadtest.servers.process import cpu_seconds

# Batching is off in all: each server measures its batch costs itself, and different decisions would not compare.
ON = {"HALFTONE_METRICS": "1", "HALFTONE_LOG_REQUESTS": "1", "HALFTONE_LOG_FORMAT": "json", "HALFTONE_BATCH": "1"}
TRACED = {"traced": "1", "sampled_out": "0"}
"""Servers with tracing: name to the sampled share of requests."""

OFF = {"HALFTONE_METRICS": "0", "HALFTONE_LOG_REQUESTS": "0", "HALFTONE_BATCH": "1"}

WITHOUT = "without"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Figures of one server in one round."""

    cell: Cell
    """Counts and latencies of the load generator."""

    cpu: float
    """Seconds of CPU time that the server's processes used."""

    @property
    def per_cpu_second(self) -> float:
        """Responses with 200 per second of CPU time."""
        return self.cell.requests / self.cpu if self.cpu else 0.0


@dataclass(frozen=True, kw_only=True)
class TelemetryCost(JsonOutput):
    """Measure the cost of metrics, log lines and traces."""

    image: Path = PHOTOS / "cat.jpg"
    """Picture to post."""

    clients: int = 8
    """Clients that each send the next request after the last response."""

    rounds: int = 10
    """Measurements of each server."""

    seconds: float = 2.0
    """Seconds of each measurement."""

    goal: float = 0.97
    """Smallest acceptable ratio."""

    output: Path | None = None
    """File for the figures as JSON, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_least(self, 1, "rounds", "clients")
        check_positive(self, "seconds", "goal")
        check_picture(self.image, "--image")


def main(config: TelemetryCost) -> int:
    """Measure, print and write the figures; return the exit code."""
    report = _report(config, *_measured_rounds(config))
    publish(report)
    for name, value in report.items():
        print(f"{name:<14}{value}")
    if config.output is not None:
        config.output.write_text(json.dumps(report, indent=1) + "\n")
    missed = any(verdict.startswith("not") for verdict in report["goal"].values())
    return int(missed or report["errors"] > 0 or report["exports"]["traced"] == 0)


def _measured_rounds(config: TelemetryCost) -> tuple[list[dict[str, Measurement]], str, dict[str, int]]:
    """Return the rounds, the variant of all servers, and the number of trace exports by server."""
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
        # Round -1 warms the servers up.
        rounds = [_round(index, servers, picture, right, config) for index in range(-1, config.rounds)][1:]
    return rounds, first["variant"], {name: each.posts for name, each in sinks.items()}


def _report(
    config: TelemetryCost, rounds: Sequence[Mapping[str, Measurement]], variant: str, exports: Mapping[str, int]
) -> dict[str, Any]:
    figures = summary(rounds)
    reached = {name: figures[name]["ratio"] >= config.goal for name in rounds[0] if name != WITHOUT}
    return figures | {
        "variant": variant,
        "exports": exports,
        "goal": {
            name: f"{'reached' if holds else 'not reached'}: at least {config.goal:g}{_noise(figures[name])}"
            for name, holds in reached.items()
        },
        "clients": config.clients,
        "seconds": config.seconds,
        "date": datetime.now(UTC).isoformat("T", "seconds"),
        "hardware": hardware(),
        "versions": versions([])["here"],
    }


def summary(rounds: Sequence[Mapping[str, Measurement]]) -> dict[str, Any]:
    """Return the figures of all rounds; each round holds one measurement of every server, by its name."""
    return {
        **{name: _comparison(rounds, name) for name in rounds[0]},
        "errors": sum(one.cell.errors + one.cell.wrong for each in rounds for one in each.values()),
    }


def _comparison(rounds: Sequence[Mapping[str, Measurement]], name: str) -> dict[str, Any]:
    """Compare one server with the one without telemetry."""
    rates = _ratios([(each[name].cell.rate, each[WITHOUT].cell.rate) for each in rounds])
    per_cpu = _ratios([(each[name].per_cpu_second, each[WITHOUT].per_cpu_second) for each in rounds])
    return {
        "ratio": round(statistics.median(rates), 4),
        "interval": [round(end, 4) for end in ratio_interval(rates) or ()] or None,
        "cpu_ratio": round(statistics.median(per_cpu), 4),
        "requests_per_second": round(statistics.median(each[name].cell.rate for each in rounds), 1),
        "ratios": rates,
        "cpu_ratios": per_cpu,
    }


def _noise(figures: Mapping[str, Any]) -> str:
    if not tie(figures["interval"]):
        return ""
    return f"; {len(figures['ratios'])} rounds can't tell the cost from the noise"


def _ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return sorted(round(with_ / without, 4) if without else 0.0 for with_, without in pairs)


def _round(
    index: int, servers: Mapping[str, Server], picture: bytes, right: int, config: TelemetryCost
) -> dict[str, Measurement]:
    """Measure every server once; the order alternates, so that a drift of the machine favours none."""
    order = list(servers) if index % 2 else list(servers)[::-1]
    return {name: _measure(servers[name], picture, right, config) for name in order}


def _cpu(server: Server) -> float:
    """Return the seconds of CPU time that the worker and its supervisor have used so far."""
    return cpu_seconds(server.process.pid)


def _measure(server: Server, picture: bytes, right: int, config: TelemetryCost) -> Measurement:
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
    cell = closed_loop.run(load)
    return Measurement(cell=cell, cpu=_cpu(server) - before)


if __name__ == "__main__":
    run(main, TelemetryCost, prog="python -m loadtest.telemetry", example="--rounds 5")
