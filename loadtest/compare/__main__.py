"""`python -m loadtest.compare`: benchmark our service against other servers, with the same photos in one run.

Starts, warms up, loads (1, 8 and 32 clients in a closed loop) and stops every server in turn, in two or more
interleaved rounds, and compares the class in each response with that of the FP32 reference. The first run installs the
peers into virtual environments under --peers-folder (minutes, some gigabytes for all); the default run then takes
about 8 minutes on two cores. Only 127.0.0.1 is used, and the machine should be idle otherwise.

The report goes to loadtest/reports/DATE-compare.md and .json; a peer that can't run is a row with the reason.
`--noop` compares the HTTP sides with a model that does nothing, `--batching` our service's settings of batching,
`--pixels 12` photographs as phones send them (with `--views 4`).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from loadtest.client import closed_loop, wrk
from loadtest.client.pictures import prepared
from loadtest.compare import report, summary
from loadtest.compare.behind import behind
from loadtest.compare.goals import failed, goals
from loadtest.compare.notes import notes
from loadtest.compare.reference import Reference, from_file, from_service, service_responses
from loadtest.compare.rounds import ComparisonPlan, Generator, PeerResult, load_of, measure
from loadtest.compare.study import Study, batching, large, noop, servers
from loadtest.reporting.cli import PHOTOS, CompareError, JsonOutput, check_writable, publish, run
from loadtest.reporting.host import hardware, versions
from loadtest.servers import environments
from loadtest.servers.catalogue import BARE
from loadtest.servers.peer import running

DONE, ANSWER_IS_NO = 0, 1
MIN_PIXELS, MAX_PIXELS = 0.1, 48
MAX_CLIENTS, MAX_LEVELS, MAX_SECONDS, MAX_ROUNDS, MAX_VIEWS = 256, 8, 60, 50, 100
_NO_MODEL_CLIENTS = 32
_PIPE_WIDTH = 220


@dataclass(frozen=True, kw_only=True)
class Compare(JsonOutput):
    """Benchmark our service against other servers.

    Raises:
        CompareError: a value is out of its range.
    """

    peers: str = ""
    """Names separated by commas; empty: all. See loadtest/servers/catalogue.py."""

    model: str = ""
    """Bundle that all servers serve; empty: the service's default."""

    variant: str = ""
    """Variant for our service and the peers with our engine; empty: the one that the service chooses."""

    noop: bool = False
    """Compare the HTTP sides with a model that does nothing, at 32 clients."""

    batching: bool = False
    """Compare our service with batching off, on and automatic, for each of --batching-variants."""

    batching_variants: tuple[str, ...] = ("openvino-fp32", "openvino-bf16")
    """Variants for --batching."""

    images: Path = PHOTOS
    """Folder of photos; views of each are sent."""

    views: int = 40
    """Views of each photo."""

    pixels: float | None = None
    """Megapixels of each view, instead of 500x375 pixels and 47 KB; needs fewer --views."""

    strict: bool = False
    """Exit with 1 for a missed goal of speed too, not only if our service fails or gives wrong predictions."""

    labels: Path | None = None
    """JSON file of right classes, {picture: class index}; without it they come from the --reference variant."""

    reference: str = "onnxruntime-fp32"
    """Variant of our service whose predictions count as right."""

    clients: tuple[int, ...] = (1, 8, 32)
    """Numbers of clients."""

    seconds: float = 4.0
    """Seconds of each cell (a server with a number of clients in a round)."""

    rounds: int = 2
    """Interleaved rounds."""

    together: bool = False
    """Run all servers at once and alternate between them within seconds; --batching always does. Not for peers that
    use CPU time or much memory while idle."""

    generator: Literal["auto", "wrk", "own"] = "auto"
    """Load generator; auto: wrk if it is installed, without --pixels."""

    peers_folder: Path = environments.DEFAULT_FOLDER
    """Folder of the peers' virtual environments."""

    output: Path | None = None
    """Path of the report's files without suffix; default: loadtest/reports/DATE-compare (-noop, -batching, -large)."""

    def __post_init__(self) -> None:
        runs = {"--noop": self.noop, "--batching": self.batching, "--pixels": self.pixels is not None}
        chosen = [flag for flag, given in runs.items() if given]
        _check(len(chosen) < 2, f"{' and '.join(chosen)} are {len(chosen)} runs: give one of them")
        _check(
            self.pixels is None or MIN_PIXELS <= self.pixels <= MAX_PIXELS,
            f"--pixels must be {MIN_PIXELS} to {MAX_PIXELS} megapixels",
        )
        _check(0 < len(self.clients) <= MAX_LEVELS, f"--clients takes 1 to {MAX_LEVELS} numbers")
        _check(all(1 <= number <= MAX_CLIENTS for number in self.clients), f"--clients must be 1 to {MAX_CLIENTS}")
        _check(len(set(self.clients)) == len(self.clients), "--clients: a number is given twice")
        _check(1 <= self.views <= MAX_VIEWS, f"--views must be 1 to {MAX_VIEWS}")
        _check(0.5 <= self.seconds <= MAX_SECONDS, f"--seconds must be 0.5 to {MAX_SECONDS}")
        _check(1 <= self.rounds <= MAX_ROUNDS, f"--rounds must be 1 to {MAX_ROUNDS}")
        _check(self.generator != "wrk" or wrk.installed(), "wrk is not installed: install it, or use --generator own")

    def study(self) -> Study:
        """Return the study that the flags select."""
        if self.noop:
            return noop()
        if self.batching:
            return batching(self.batching_variants)
        return servers(self.peers) if self.pixels is None else large(self.peers)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise CompareError(message)


def main(config: Compare) -> int:
    """Measure, write and print the report; return the exit code."""
    console = Console(stderr=True)
    study = config.study()
    date = datetime.now(UTC)
    output = config.output or Path("loadtest/reports") / f"{date:%Y-%m-%d}-{study.name}"
    check_writable(output, "--output")
    if config.model:
        os.environ["HALFTONE_MODEL"] = config.model
    if config.variant:
        os.environ["HALFTONE_VARIANT"] = config.variant
    pictures = prepared(config.images, config.views if study.model else 1, config.pixels)
    reference = _reference(config, study, pictures)
    plan = _plan(config, study, pictures, reference, console)
    ceiling = _ceiling(plan)
    results = measure(plan)
    result = _report(study, plan, reference, results, ceiling, date)
    _write(result, output, console)
    return ANSWER_IS_NO if failed(result.rows, result.goals, strict=config.strict) else DONE


def _reference(config: Compare, study: Study, pictures: Mapping[str, bytes]) -> Reference:
    if not study.model:
        return Reference(labels=dict.fromkeys(pictures, 0), origin="a constant")
    if config.labels is None:
        return from_service(pictures, config.reference)
    reference = from_file(config.labels)
    if not reference.labels.keys() & pictures.keys():
        raise CompareError(f"--labels {config.labels} names none of the pictures {', '.join(list(pictures)[:3])}, …")
    return reference


def _variant(config: Compare, study: Study, pictures: Mapping[str, bytes]) -> str:
    """Return the variant that our service chooses; empty if no row depends on it."""
    mentioned = any("{variant}" in text for peer in study.peers for text in (peer.engine, *peer.settings.values()))
    if config.variant or not mentioned:
        return config.variant
    name, picture = next(iter(pictures.items()))
    return str(service_responses({name: picture})[name]["variant"])


def _plan(
    config: Compare, study: Study, pictures: Mapping[str, bytes], reference: Reference, console: Console
) -> ComparisonPlan:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    # Each of wrk's threads holds all photos: too much memory with large ones.
    use_wrk = config.generator == "wrk" or (config.generator == "auto" and wrk.installed() and not config.pixels)
    return ComparisonPlan(
        peers=study.peers,
        pictures={name: picture for name, picture in pictures.items() if name in reference.labels},
        labels=reference.labels,
        clients=config.clients if study.model else (_NO_MODEL_CLIENTS,),
        seconds=config.seconds,
        rounds=config.rounds,
        variant=_variant(config, study, pictures),
        generate=wrk.run if use_wrk else closed_loop.run,
        interpreter=partial(environments.interpreter, folder=config.peers_folder, say=say),
        say=say,
        together=config.together or study.together,
    )


def _ceiling(plan: ComparisonPlan) -> float:
    """Return the requests per second of the generator against a server that does nothing."""
    plan.say("the generator against a server that does nothing")
    first = next(iter(plan.pictures.values()))
    with running(BARE, Path(sys.executable), first, plan.variant) as server:
        return plan.generate(load_of(plan, server, max(plan.clients), plan.seconds)).rate


def _report(
    study: Study,
    plan: ComparisonPlan,
    reference: Reference,
    results: list[PeerResult],
    ceiling: float,
    date: datetime,
) -> report.Report:
    rows = summary.rows(results, plan.clients, plan.variant, study.references)
    return report.Report(
        title=study.title,
        date=date,
        command=shlex.join(["python", "-m", "loadtest.compare", *sys.argv[1:]]),
        rows=rows,
        goals=goals(study.name, rows),
        behind=behind(rows),
        ratios=list(study.references),
        notes=notes(plan, reference, results, generator=_name(plan.generate), ceiling=ceiling),
        facts={
            "hardware": hardware(),
            "clients": list(plan.clients),
            "seconds": plan.seconds,
            "rounds": plan.rounds,
            "together": plan.together,
            "generator": _name(plan.generate),
            "generator_ceiling_per_second": round(ceiling),
            "versions": versions([peer.requirements for peer in plan.peers if peer.requirements]),
            "labels": dict(reference.labels),
        },
    )


def _name(generate: Generator) -> str:
    return "wrk" if generate is wrk.run else "built-in"


def _write(result: report.Report, path: Path, console: Console) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(json.loads(result.to_json()))
    for suffix, text in ((".json", result.to_json()), (".md", result.markdown())):
        Path(f"{path}{suffix}").write_text(text)
    # A file or pipe gets the table without line breaks in its rows.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(result.table())
    for goal in result.goals:
        console.print(goal.line(), highlight=False, markup=False, soft_wrap=True)
    for line in result.behind:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"written: {path}.md and {path}.json", highlight=False)


if __name__ == "__main__":
    run(main, Compare, prog="python -m loadtest.compare", example="--peers fastapi,bentoml --rounds 2")
