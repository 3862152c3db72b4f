"""`python -m loadtest.compare`: our service and other servers, measured with the same photos in one run.

Every server is started, warmed, loaded by 1, 8 and 32 clients in a closed loop and stopped again, one after the other,
in two or more interleaved rounds; each answer's class is compared with that of the FP32 reference. Peers get
environments of their own under --peers-folder the first time (minutes, some gigabytes for all); then the default run
takes about 8 minutes on two cores. Only 127.0.0.1 is used, and the machine should have nothing else to do.

The report goes to loadtest/reports/DATE-compare.md and .json; a peer that can't run is a row with the reason.
`--noop` compares the HTTP sides with a model that does nothing, `--batching` our service's settings of batching.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

import tyro
from rich.console import Console

from loadtest.client import connection as generator
from loadtest.client import wrk
from loadtest.client.pictures import prepared
from loadtest.compare import reference, report, study, summary
from loadtest.compare.goals import failed, goals
from loadtest.compare.notes import notes
from loadtest.compare.reference import Reference
from loadtest.compare.rounds import Generator, Plan, Result, load_of, measure
from loadtest.compare.study import Study
from loadtest.reporting.cli import CompareError
from loadtest.reporting.tables import hardware, versions
from loadtest.servers import environments
from loadtest.servers.catalogue import BARE
from loadtest.servers.process import running

DONE, ANSWER_IS_NO, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
MAX_CLIENTS, MAX_LEVELS, MAX_SECONDS, MAX_ROUNDS, MAX_VIEWS = 256, 8, 60, 50, 100
_NO_MODEL_CLIENTS = 32
_PIPE_WIDTH = 220


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Measure our service beside other servers.

    Raises:
        CompareError: a value is out of its range.
    """

    peers: str = ""
    """Names separated by commas; empty: all. See loadtest/servers/catalogue.py."""

    model: str = ""
    """Bundle that all of them serve; empty: the service's default."""

    variant: str = ""
    """Variant that our service uses, and the peers with our engine; empty: the one that the service chooses."""

    noop: bool = False
    """Compare the HTTP sides with a model that does nothing, at 32 clients."""

    batching: bool = False
    """Compare our service's batching off, on and automatic, for each of --batching-variants."""

    batching_variants: tuple[str, ...] = ("openvino-fp32", "openvino-bf16")
    """Variants for --batching."""

    images: Path = Path("export/photos")
    """Folder of photos; views of each are sent, 500x375 pixels and about 47 KB."""

    views: int = 40
    """Views of each photo."""

    strict: bool = False
    """Exit with 1 for a missed goal of speed too, not only where our service fails or answers wrongly."""

    labels: Path | None = None
    """JSON file of right answers, {picture: class index}; without it our service's --reference variant is asked."""

    reference: str = "onnxruntime-fp32"
    """Variant of our service whose answers count as right."""

    clients: tuple[int, ...] = (1, 8, 32)
    """Numbers of clients."""

    seconds: float = 4.0
    """Seconds of each cell (a server with a number of clients in a round)."""

    rounds: int = 2
    """Interleaved rounds."""

    together: bool = False
    """Let all servers run at once, idle but for their turn, which then come within seconds of each other (--batching
    does so anyhow). Not for peers that use processors or much memory while they wait."""

    generator: Literal["auto", "wrk", "own"] = "auto"
    """Load generator; auto: wrk where it is installed."""

    peers_folder: Path = environments.DEFAULT_FOLDER
    """Folder of the peers' environments."""

    output: Path | None = None
    """The report's files without their ending; by default loadtest/reports/DATE-compare (-noop, -batching)."""

    def __post_init__(self) -> None:
        _check(not (self.noop and self.batching), "--noop and --batching are two runs: give one of them")
        _check(0 < len(self.clients) <= MAX_LEVELS, f"--clients takes 1 to {MAX_LEVELS} numbers")
        _check(all(1 <= number <= MAX_CLIENTS for number in self.clients), f"--clients must be 1 to {MAX_CLIENTS}")
        _check(len(set(self.clients)) == len(self.clients), "--clients: a number is given twice")
        _check(1 <= self.views <= MAX_VIEWS, f"--views must be 1 to {MAX_VIEWS}")
        _check(0.5 <= self.seconds <= MAX_SECONDS, f"--seconds must be 0.5 to {MAX_SECONDS}")
        _check(1 <= self.rounds <= MAX_ROUNDS, f"--rounds must be 1 to {MAX_ROUNDS}")
        _check(self.generator != "wrk" or wrk.installed(), "there is no wrk: install it, or use --generator own")

    def study(self) -> Study:
        """Which question is asked."""
        if self.noop:
            return study.noop()
        return study.batching(self.batching_variants) if self.batching else study.servers(self.peers)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise CompareError(message)


def main(config: Compare) -> int:
    """Measure, write and print; the exit code."""
    console = Console(stderr=True)
    asked = config.study()
    date = datetime.now(UTC)
    if config.model:
        os.environ["HALFTONE_MODEL"] = config.model
    if config.variant:
        os.environ["HALFTONE_VARIANT"] = config.variant
    pictures = prepared(config.images, config.views if asked.model else 1)
    known = _reference(config, asked, pictures)
    plan = _plan(config, asked, pictures, known, console)
    ceiling = _ceiling(plan)
    results = measure(plan)
    finished = _report(config, asked, plan, known, results, ceiling, date)
    _write(finished, config.output or Path("loadtest/reports") / f"{date:%Y-%m-%d}-{asked.name}", console)
    return ANSWER_IS_NO if failed(finished.rows, finished.goals, strict=config.strict) else DONE


def _reference(config: Compare, asked: Study, pictures: Mapping[str, bytes]) -> Reference:
    if not asked.model:
        return Reference(labels=dict.fromkeys(pictures, 0), origin="a constant")
    if config.labels is None:
        return reference.from_service(pictures, config.reference)
    known = reference.from_file(config.labels)
    if not known.labels.keys() & pictures.keys():
        raise CompareError(f"--labels {config.labels} names none of the pictures {', '.join(list(pictures)[:3])}, …")
    return known


def _variant(config: Compare, asked: Study, pictures: Mapping[str, bytes]) -> str:
    """The variant that our service chooses, where a row depends on it."""
    mentioned = any("{variant}" in text for peer in asked.peers for text in (peer.engine, *peer.settings.values()))
    if config.variant or not mentioned:
        return config.variant
    name, picture = next(iter(pictures.items()))
    return str(reference.answers_of_service({name: picture})[name]["variant"])


def _plan(config: Compare, asked: Study, pictures: Mapping[str, bytes], known: Reference, console: Console) -> Plan:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    use_wrk = config.generator == "wrk" or (config.generator == "auto" and wrk.installed())
    return Plan(
        peers=asked.peers,
        pictures={name: picture for name, picture in pictures.items() if name in known.labels},
        labels=known.labels,
        clients=config.clients if asked.model else (_NO_MODEL_CLIENTS,),
        seconds=config.seconds,
        rounds=config.rounds,
        variant=_variant(config, asked, pictures),
        generate=wrk.run if use_wrk else generator.run,
        interpreter=partial(environments.interpreter, folder=config.peers_folder, say=say),
        say=say,
        together=config.together or asked.together,
    )


def _ceiling(plan: Plan) -> float:
    """Requests a second that the generator reaches against a server that does nothing."""
    plan.say("the generator against a server that does nothing")
    first = next(iter(plan.pictures.values()))
    with running(BARE, Path(sys.executable), first, plan.variant) as server:
        return plan.generate(load_of(plan, server, max(plan.clients), plan.seconds)).rate


def _report(
    config: Compare,
    asked: Study,
    plan: Plan,
    known: Reference,
    results: list[Result],
    ceiling: float,
    date: datetime,
) -> report.Report:
    rows = summary.rows(results, plan.clients, plan.variant, asked.references)
    return report.Report(
        title=asked.title,
        date=date,
        command=shlex.join(["python", "-m", "loadtest.compare", *sys.argv[1:]]),
        rows=rows,
        goals=goals(asked.name, rows),
        ratios=list(asked.references),
        notes=notes(plan, known, results, generator=_name(plan.generate), ceiling=ceiling),
        facts={
            "hardware": hardware(),
            "clients": list(plan.clients),
            "seconds": plan.seconds,
            "rounds": plan.rounds,
            "together": plan.together,
            "generator": _name(plan.generate),
            "generator_ceiling_per_second": round(ceiling),
            "versions": versions([peer.requirements for peer in plan.peers if peer.requirements]),
            "labels": dict(known.labels),
        },
    )


def _name(generate: Generator) -> str:
    return "wrk" if generate is wrk.run else "the own one"


def _write(finished: report.Report, path: Path, console: Console) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in ((".json", finished.to_json()), (".md", finished.markdown())):
        Path(f"{path}{suffix}").write_text(text)
    # Into a file or a pipe the table goes unfolded.
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(finished.table())
    for goal in finished.goals:
        console.print(goal.line(), highlight=False, markup=False, soft_wrap=True)
    console.print(f"written: {path}.md and {path}.json", highlight=False)


def command() -> NoReturn:
    """The command line: mistakes become one line."""
    try:
        code = main(tyro.cli(Compare, prog="python -m loadtest.compare"))
    except CompareError as error:
        print(f"error: {error}", file=sys.stderr)
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print("interrupted: the servers were stopped, and no report was written", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    command()
