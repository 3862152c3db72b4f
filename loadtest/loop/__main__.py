"""`python -m loadtest.loop`: a model gets better by the pictures that it fails on, from the first request to the last.

    python -m loadtest.loop --name Sneaker
    python -m loadtest.loop --work loop --label-studio http://127.0.0.1:8080

Trains a model that never sees a dark picture of one class, serves it with HALFTONE_COLLECT, and sends such pictures
among others. What the service collects is labelled, trained on, and rolled out as a canary that the service promotes by
its rule. Held-out pictures are answered before and after. Everything goes through the public commands and HTTP.
Label Studio labels if `--label-studio` names one. About 10 min on two cores. Exit code 1 if a check fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.loop.annotator import LabelStudio, exported, recognise
from loadtest.loop.client import classify, collected, drifted, right
from loadtest.loop.commands import command
from loadtest.loop.pictures import Pictures, prepare
from loadtest.loop.rollout import RollOut, roll_out
from loadtest.reporting.cli import CompareError, JsonOutput, check_least, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.reporting.intervals import mcnemar, wilson
from loadtest.servers.halftone import Server, started

BEFORE, AFTER = "before", "after"
"""Names of the two bundles; the service goes on to serve the second under the name of the first."""

SHARES = "random=0.1"
"""Beside what is unfamiliar or not confident: a model that was fitted on few pictures promises neither of many."""

TOKEN = "LABEL_STUDIO_TOKEN"

SECOND = ("--head-lr", 1e-3)
"""For the second training, which goes on: with the rate of a new head, it would forget what the first one learned."""

LEVEL = 0.05
"""Level of the paired tests."""


@dataclass(frozen=True, kw_only=True)
class Loop(JsonOutput):
    """Collect, label, train again, and roll out with a canary."""

    data: Path = Path("training/sample")
    """Folder with `train/CLASS` and `val/CLASS`; dark copies are made of its pictures."""

    name: str = "Sneaker"
    """Class without dark pictures in the first training."""

    model: str = "efficientnet_lite0"
    """Architecture of the catalogue."""

    recipe: str = "quick"
    """Recipe of both trainings."""

    size: int = 64
    """Side of the model's input in pixels."""

    requests: int = 2000
    """Pictures to send before the labelling."""

    labels: int = 200
    """Most pictures to label."""

    seed: int = 0
    """Seed of the choice of pictures and of their darkness."""

    work: Path | None = None
    """New folder that keeps data set, bundles and labels; default: a temporary one. Label Studio must be started with
    its sub-folder `review` as LOCAL_FILES_DOCUMENT_ROOT."""

    label_studio: str = ""
    """Address of a running Label Studio; its token is read from the variable LABEL_STUDIO_TOKEN. Default: none, the
    labels are written into a file as it exports them."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_least(self, 1, "labels", "requests", "size")
        check_least(self, 0, "seed")
        if self.label_studio and not (self.work and os.environ.get(TOKEN)):
            raise CompareError(
                f"--label-studio needs --work, whose folder review it must be able to read, and its token in {TOKEN}"
            )
        if self.work is not None and self.work.exists():
            raise CompareError(f"--work {self.work} exists: name a new folder, or remove it")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run has measured."""

    collected: dict[str, int]
    drifted: list[str]
    unanswered: int
    labelled: dict[str, Any]
    """Printed by `training.data.review --json` about the labels."""

    of_kind: int
    """Labels of the class."""

    added: int
    rolled_out: RollOut
    before: tuple[list[bool], list[bool]]
    """Right answers for the held-out pictures of the kind, and for the others."""

    after: tuple[list[bool], list[bool]]
    seconds: dict[str, float]


def measure(config: Loop, folder: Path) -> Run:
    """Go through the loop once in this folder."""
    seconds: dict[str, float] = {}
    artifacts, data, review = folder / "artifacts", folder / "photos", folder / "review"
    pictures = prepare(config.data, data, config.name, requests=config.requests, seed=config.seed)
    environment = {"HALFTONE_ARTIFACTS": str(artifacts)}
    how = ("--data", data, "--recipe", config.recipe, "--seed", config.seed)
    with _timed(seconds, "first training and proof"):
        train = ("--model", config.model, "--size", config.size, "--output", artifacts / BEFORE)
        command("training", *how, *train, environment=environment)
        command("export", "--model", BEFORE, "--data", data, environment=environment)
    token = secrets.token_urlsafe(24)
    settings = environment | {
        "HALFTONE_MODEL": BEFORE,
        "HALFTONE_ADMIN_TOKEN": token,
        "HALFTONE_COLLECT": str(folder / "collected"),
        "HALFTONE_COLLECT_SHARES": SHARES,
        "HALFTONE_LOG_REQUESTS": "0",
    }
    with started(**settings) as server:
        server.first_answer(pictures.sent[0].data)
        with _timed(seconds, "requests"):
            unanswered = sum(answer is None for answer in classify(server.port, pictures.sent))
            kept, drift = collected(server.port), drifted(server.port)
        with _timed(seconds, "labels"):
            labels, said = _label(config, folder, pictures)
        # After the labels: the service collects of these, too, and none may be trained on.
        before = _right(server, pictures)
        with _timed(seconds, "second training and proof"):
            more = ("--add", review / "labels.csv", "--from", BEFORE, *SECOND, "--output", artifacts / AFTER)
            command("training", *how, *more, environment=environment)
            command("export", "--model", AFTER, "--data", data, environment=environment)
        rolled_out = roll_out(server.port, token, BEFORE, AFTER, pictures.sent)
        after = _right(server, pictures)
    return Run(
        collected=kept,
        drifted=drift,
        unanswered=unanswered,
        labelled=said,
        of_kind=labels.count(config.name),
        added=len(labels),
        rolled_out=rolled_out,
        before=before,
        after=after,
        seconds=seconds,
    )


def _right(server: Server, pictures: Pictures) -> tuple[list[bool], list[bool]]:
    return right(server.port, pictures.kind), right(server.port, pictures.others)


def _label(config: Loop, folder: Path, pictures: Pictures) -> tuple[list[str], dict[str, Any]]:
    """Write the table of labels; return the labels, and what the command says about them."""
    review, environment = folder / "review", {"HALFTONE_ARTIFACTS": str(folder / "artifacts")}
    file, export, labelled = review / "tasks.json", review / "export.json", review / "labels.csv"
    chosen = ("--from", folder / "collected", "--to", file, "--most", config.labels)
    command("training.data.review", *chosen, environment=environment)
    tasks = json.loads(file.read_text())
    labels = recognise(tasks, review, pictures.sent)
    if config.label_studio:
        studio = LabelStudio(config.label_studio, os.environ[TOKEN])
        annotated = studio.label(tasks, file.with_suffix(".xml").read_text(), review / "pictures", labels)
    else:
        annotated = exported(tasks, labels)
    export.write_text(json.dumps(annotated))
    said = command("training.data.review", "--from", export, "--to", labelled, "--json", environment=environment)
    return labels, json.loads(said)


def figures(config: Loop, run: Run) -> list[Figure]:
    """Return the figures of a run with their goals."""
    done, lost = run.rolled_out, run.unanswered + run.rolled_out.unanswered
    last = done.decisions[-1] if done.decisions else {}
    return [
        Figure("requests before the labelling", config.requests),
        Figure("requests without an answer", lost, "0", not lost),
        Figure("collected", json.dumps(run.collected)),
        Figure("drift of", ", ".join(run.drifted) or "nothing"),
        Figure("labelled", run.labelled["labels"]),
        Figure(f"of them {config.name}", run.of_kind),
        Figure("of them answered right before", run.labelled["model_was_right"]),
        *_accuracy(f"dark {config.name}", run.before[0], run.after[0], better=True),
        *_accuracy("other pictures", run.before[1], run.after[1], better=False),
        Figure("canary", f"{last.get('decision')} by {last.get('by')}", "promoted by rule", done.promoted),
        Figure("requests during the roll-out", done.requests),
        Figure("answers by version", json.dumps(done.versions)),
        *(Figure(f"{name} s", round(value)) for name, value in (run.seconds | {"roll-out": done.seconds}).items()),
    ]


def _accuracy(name: str, before: Sequence[bool], after: Sequence[bool], *, better: bool) -> list[Figure]:
    pairs = list(zip(before, after, strict=True))
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(lost, won)
    goal, holds = ("better", won > lost and p < LEVEL) if better else ("not worse", won >= lost or p >= LEVEL)
    return [
        Figure(f"accuracy on {len(before)} held-out {name} before", _rate(before)),
        Figure(f"accuracy on {len(after)} held-out {name} after", _rate(after)),
        Figure(f"{name}: lost, won, McNemar's p", f"{lost}, {won}, {p:.2g}", f"{goal} at the level {LEVEL}", holds),
    ]


def _rate(right: Sequence[bool]) -> str:
    low, high = wilson(sum(right), len(right))
    return f"{sum(right) / len(right):.1%} ({low:.1%} to {high:.1%})"


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start


def main(config: Loop) -> int:
    """Measure and report; return the exit code."""
    with contextlib.ExitStack() as stack:
        work = config.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="halftone-loop-")))
        found = figures(config, measure(config, work.absolute()))
    labelled_by = "Label Studio's API" if config.label_studio else "a file as Label Studio exports it"
    setting = {"data": config.data.name, "labels through": labelled_by} | {
        name: getattr(config, name) for name in ("model", "recipe", "size", "seed")
    }
    return Findings(f"Collect, label, train again, roll out: dark pictures of {config.name}", found, setting).report(
        config.output
    )


if __name__ == "__main__":
    run(main, Loop, prog="python -m loadtest.loop", example="--name Sneaker --output loop")
