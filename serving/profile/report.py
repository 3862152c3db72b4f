"""Convert the timings to the table of stages, and print it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from serving.profile.stages import Stages

ROWS = (
    "HTTP: socket, client",
    "HTTP: parse",
    "body",
    "queue",
    "decode",
    "fit",
    "infer",
    "hand-over",
    "encode",
    "send",
    "total",
)


def split(sample: Stages, isolated: Mapping[str, float], client: float | None) -> Stages:
    """Return the rows of one request in seconds; they add up to its total.

    Args:
        sample: timings of the probe and the recorder.
        isolated: result of `isolated.time_stages`; its ratio of decode to fit splits the sample's pixels.
        client: latency in seconds that the client measured; None without a socket.
    """
    pixels = sample["pixels"]
    decoding = pixels * isolated["decode"] / (isolated["decode"] + isolated["fit"])
    known = sample["body"] + sample["queue"] + pixels + sample["infer"] + isolated["encode"] + sample["send"]
    rows = {
        "body": sample["body"],
        "queue": sample["queue"],
        "decode": decoding,
        "fit": pixels - decoding,
        "infer": sample["infer"],
        "hand-over": sample["application"] - known,
        "encode": isolated["encode"],
        "send": sample["send"],
        "total": sample["application"],
    }
    if client is None:
        return rows
    parse = isolated["parse"]
    http = {"HTTP: socket, client": client - sample["application"] - parse, "HTTP: parse": parse}
    return http | rows | {"total": client}


def summary(samples: Sequence[Stages]) -> dict[str, dict[str, float]]:
    """Return the median and 95th percentile of each row, in milliseconds."""
    result = {}
    for name in samples[0]:
        values = sorted(1000 * sample[name] for sample in samples)
        result[name] = {
            "median_ms": round(statistics.median(values), 4),
            "p95_ms": round(values[min(len(values) - 1, int(0.95 * len(values)))], 4),
        }
    return result


def show(report: Mapping[str, Any]) -> None:
    """Print the table."""
    inside, outside = report["in_process"], report["over_socket"]
    picture = report["picture"]
    title = (
        f"{report['model']} ({report['variant']}), {picture['name']}: {picture['bytes']:,} bytes, one request at a time"
    )
    table = Table("stage", "in process ms", "over a socket ms", "p95 ms", "share", title=title, title_justify="left")
    for name in ROWS:
        middle = outside[name]["median_ms"]
        table.add_row(
            name,
            f"{inside[name]['median_ms']:.3f}" if name in inside else "",
            f"{middle:.3f}",
            f"{outside[name]['p95_ms']:.3f}",
            f"{middle / outside['total']['median_ms']:.1%}",
            end_section=name == "send",
        )
    console = Console()
    console.print(table)
    host, versions = report["host"], ", ".join(f"{name} {each}" for name, each in report["versions"].items())
    console.print(f"{host['cpu']}, {host['cores']} cores; {versions}; {report['date']}", highlight=False)
