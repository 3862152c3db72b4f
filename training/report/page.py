"""`write_report`: what a trained model learnt, where it errs and how far it can be believed, on one page.

The page holds its pictures itself and loads nothing, so it can be mailed or kept as it is. About 1 s for 10,000
pictures and ten classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.common.files import write_atomic
from models.common.statistics import Probabilities, softmax
from models.spec import InputSpec
from training.data.pictures import Pictures
from training.evaluation.calibration import reliability
from training.evaluation.metrics import classification_metrics, confusion
from training.report import figures, html
from training.report.mistakes import Mistake, worst_mistakes

INDEX, METRICS = "index.html", "metrics.json"

MOST_PAIRS = 15


def write_report(
    folder: Path,
    *,
    history: list[dict[str, float]],
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    pictures: Pictures,
    spec: InputSpec,
    temperature: float,
    title: str,
    config: dict[str, Any],
    fitted_here: bool = True,
) -> Path:
    """Write `index.html`, its drawings as PNG files of their own, and `metrics.json`.

    Args:
        folder: where to; made if need be.
        history: one dictionary per epoch: epoch, lr, train_loss, val_loss, val_top1, val_top5 (0..1),
            images_per_second, seconds; what is missing is not drawn.
        logits: float32 (N, C) on the validation pictures.
        targets: int64 (N,), their classes.
        labels: C class names.
        pictures: the N validation pictures.
        spec: what the network sees of them.
        temperature: divides the logits.
        title: the model's name.
        config: the settings of the run.
        fitted_here: whether the temperature was fitted on these pictures; else the logits are calibrated already.

    Returns:
        The page's path.
    """
    before, after = softmax(logits), softmax(logits, temperature)
    report = _Report(
        title=title,
        history=history,
        temperature=temperature,
        fitted_here=fitted_here,
        matrix=confusion(logits.argmax(axis=1), targets, len(labels)),
        before=classification_metrics(before, targets, labels),
        after=classification_metrics(after, targets, labels),
        mistakes=worst_mistakes(after, targets, pictures, spec),
    )
    drawings = _drawings(report, before, after, targets, labels)
    for name, png in drawings.items():
        write_atomic(folder / f"{name}.png", png)
    write_atomic(folder / METRICS, _metrics(report))
    text = html.page(
        title=title,
        subtitle=_subtitle(config, spec),
        tiles=_tiles(report),
        sections=_sections(report, drawings, labels, config),
    )
    write_atomic(folder / INDEX, text.encode())
    return folder / INDEX


@dataclass(frozen=True, kw_only=True)
class _Report:
    title: str
    history: list[dict[str, float]]
    temperature: float
    fitted_here: bool
    matrix: npt.NDArray[np.int64]
    before: dict[str, Any]
    after: dict[str, Any]
    mistakes: list[Mistake]


def _drawings(
    report: _Report,
    before: Probabilities,
    after: Probabilities,
    targets: npt.NDArray[np.int64],
    labels: tuple[str, ...],
) -> dict[str, bytes]:
    drawn = {
        "confusion": figures.confusion_matrix(report.matrix, labels),
        "reliability": figures.reliability_diagram(
            reliability(before, targets), reliability(after, targets), report.temperature
        ),
    }
    if report.history:
        drawn |= {"curves": figures.curves(report.history), "schedule": figures.schedule(report.history)}
    return drawn


def _metrics(report: _Report) -> bytes:
    values = {
        "title": report.title,
        "temperature": report.temperature,
        "before_calibration": report.before,
        "after_calibration": report.after,
        "history": report.history,
    }
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _subtitle(config: dict[str, Any], spec: InputSpec) -> str:
    known = [f"{name} {config[name]}" for name in ("model", "recipe", "data") if config.get(name)]
    return " · ".join([*known, f"input {spec.size} x {spec.size}"])


def _tiles(report: _Report) -> Iterator[str]:
    after, top1, top5 = report.after, report.after["top1"], report.after["top5"]
    yield html.tile(f"{top1['value']:.2%}", "top-1 accuracy", f"95 % interval {top1['low']:.1%} to {top1['high']:.1%}")
    if len(report.matrix) > 5:
        yield html.tile(f"{top5['value']:.2%}", "top-5 accuracy", f"{top5['low']:.1%} to {top5['high']:.1%}")
    yield html.tile(f"{after['macro_f1']:.3f}", "macro F1", "mean over the classes")
    yield html.tile(
        f"{after['ece']:.2%}",
        "calibration error",
        f"{report.before['ece']:.2%} before the temperature of {report.temperature:.3g}"
        if report.fitted_here
        else "of calibrated answers",
    )
    yield html.tile(f"{after['images']:,}", "validation pictures", f"{len(report.matrix)} classes")
    seconds = sum(row.get("seconds", 0.0) for row in report.history)
    if seconds:
        yield html.tile(_duration(seconds), "training time", f"{len(report.history)} epochs")


def _sections(
    report: _Report, drawings: dict[str, bytes], labels: tuple[str, ...], config: dict[str, Any]
) -> Iterator[str]:
    if "curves" in drawings:
        yield html.section(
            "Learning",
            "Validation loss that rises while training loss falls means overfitting: augment more or train for less.",
            html.image(drawings["curves"], "loss and accuracy by epoch")
            + html.image(drawings["schedule"], "learning rate and speed by epoch"),
        )
    yield html.section(
        "Classes",
        "The hardest first. Precision: how often the answer is right where it is given; recall: how many of the class "
        "are found.",
        html.class_table(report.after["classes"]),
    )
    yield html.section(
        "Confusion",
        "Rows are true classes, columns are answers; colour is the share of the row.",
        html.image(drawings["confusion"], "confusion matrix") + html.pair_table(_pairs(report.matrix, labels)),
    )
    yield html.section(
        "Calibration",
        "Bars that end on the diagonal: of the answers given with 80 % confidence, 80 % are right. "
        + (
            "The temperature was fitted on these pictures, so the error after it is a little optimistic."
            if report.fitted_here
            else "The model's own temperature is part of the answers; nothing was fitted on these pictures."
        ),
        html.image(drawings["reliability"], "reliability diagram before and after the temperature"),
    )
    yield html.section(
        "Worst mistakes",
        "Wrong answers that the model was surest of, as it saw the pictures. Wrong labels in the data show here first."
        if report.mistakes
        else "None: every validation picture was classified rightly.",
        html.gallery(report.mistakes),
    )
    yield html.folded("Settings", html.settings_table(config))


def _pairs(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> Iterator[tuple[str, str, int, float]]:
    """The most frequent confusions."""
    wrong = matrix - np.diag(np.diag(matrix))
    for flat in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]:
        truth, answer = divmod(int(flat), len(labels))
        count = int(wrong[truth, answer])
        if count:
            yield labels[truth], labels[answer], count, count / int(matrix[truth].sum())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
