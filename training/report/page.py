"""Report of a trained model on one HTML page: curves, metrics, confusions, calibration and worst mistakes.

The page embeds its images and loads nothing, so that it can be mailed and archived as one file. Takes about 1 s for
10,000 images and ten classes.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bundle.accuracy import Accuracy, known
from models.common.files import write_atomic
from models.common.pages import environment, flat
from models.common.statistics import Probabilities, softmax
from models.spec import InputSpec
from training.data.pictures import Pictures
from training.evaluation.against import Against
from training.evaluation.against import in_words as in_sentence
from training.evaluation.calibration import reliability
from training.evaluation.metrics import classification_metrics, confusion
from training.evaluation.promises import in_words
from training.evaluation.temperature import Calibration
from training.report import figures
from training.report.mistakes import Mistake, worst_mistakes

INDEX, METRICS, ADDED = "index.html", "metrics.json", "added.csv"
TEMPLATE = Path(__file__).with_name("page.html")
MOST_PAIRS = 15
MOST_ADDED = 60
"""Added images that the page names; `added.csv` has all."""


def write_report(
    folder: Path,
    *,
    history: list[dict[str, float]],
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    pictures: Pictures,
    spec: InputSpec,
    calibration: Calibration | None,
    title: str,
    config: dict[str, Any],
    promises: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    against: Against | None = None,
    chosen_here: bool = True,
    following: str = "",
) -> Path:
    """Write `index.html`, its drawings also as separate PNG files, `metrics.json`, and `added.csv` for added images.

    Args:
        folder: output folder; created if missing.
        history: one dictionary per epoch: epoch, lr, train_loss, val_loss, val_top1, val_top5 (0..1),
            images_per_second, seconds; missing values are not drawn.
        logits: float32 (N, C) of the validation images.
        targets: int64 (N,), their classes.
        labels: C class names.
        pictures: the N validation images.
        spec: the network's input.
        calibration: temperature that was fitted on these images; None if the logits are calibrated already.
        title: the model's name.
        config: the settings of the run.
        promises: result of `training.evaluation.promises.measure_on_half`; None for no such section.
        metrics: those of the manifest, whose accuracies on other parts are shown too; None for none.
        against: comparison with the network that the training went on from; None without one.
        following: command to run next; none is shown if it is empty.
        chosen_here: True if these images chose the epoch and the temperature.

    Returns:
        The page's path.
    """
    temperature = calibration.temperature if calibration else 1.0
    before, after = softmax(logits), softmax(logits, temperature)
    report = _Report(
        title=title,
        history=history,
        temperature=temperature,
        calibration=calibration,
        chosen_here=chosen_here,
        others=[each for each in known(metrics or {}) if each.name != "validation"],
        against=against,
        matrix=confusion(logits.argmax(axis=1), targets, len(labels)),
        before=classification_metrics(before, targets, labels),
        after=classification_metrics(after, targets, labels),
        mistakes=worst_mistakes(after, targets, pictures, spec),
    )
    drawings = _drawings(report, before, after, targets, labels)
    for name, png in drawings.items():
        write_atomic(folder / f"{name}.png", png)
    write_atomic(folder / METRICS, _metrics(report))
    if against is not None and against.added:
        write_atomic(folder / ADDED, _added(against))
    write_atomic(folder / INDEX, _page(report, drawings, labels, config, spec, promises, following).encode())
    return folder / INDEX


@dataclass(frozen=True, kw_only=True)
class _Report:
    title: str
    history: list[dict[str, float]]
    temperature: float
    calibration: Calibration | None
    chosen_here: bool
    others: list[Accuracy]
    against: Against | None
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


def _added(against: Against) -> bytes:
    """Return a table of the added images: what both networks answer."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "before", "now"))
    writer.writerows((row.name, row.label, row.before, row.now) for row in against.added)
    return text.getvalue().encode(errors="backslashreplace")


def _page(
    report: _Report,
    drawings: dict[str, bytes],
    labels: tuple[str, ...],
    config: dict[str, Any],
    spec: InputSpec,
    promises: dict[str, Any] | None,
    following: str,
) -> str:
    pages = environment(TEMPLATE.parent)
    pages.filters |= {"percent": _percent, "data_url": _data_url}
    return pages.get_template(TEMPLATE.name).render(
        title=report.title,
        subtitle=_subtitle(config, spec),
        tiles=_tiles(report),
        drawings=drawings,
        classes=sorted(report.after["classes"], key=lambda entry: (not entry["images"], entry["f1"])),
        labels=labels,
        matrix=_matrix(report.matrix, labels) if len(labels) <= figures.MOST_NAMED else None,
        confusions=_confusions(report.matrix, labels),
        calibration=report.calibration,
        chosen_here=report.chosen_here,
        promises=promises,
        against=report.against and report.against.summary(),
        compared=report.against and in_sentence(report.against.summary()),
        added=sorted(report.against.added, key=lambda row: row.now == row.label)[:MOST_ADDED] if report.against else [],
        kept=in_words(promises) if promises else [],
        error=report.after["ece"],
        by_chance=report.after["ece_by_chance"],
        mistakes=report.mistakes,
        settings=flat(config),
        following=following,
    )


def _percent(share: float, decimals: int = 1) -> str:
    return f"{share:.{decimals}%}"


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _subtitle(config: dict[str, Any], spec: InputSpec) -> str:
    given = [f"{name} {config[name]}" for name in ("model", "recipe", "data", "part") if config.get(name)]
    return " · ".join([*given, f"input {spec.size} x {spec.size}"])


def _tiles(report: _Report) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and note of every headline metric."""
    after, top1, top5 = report.after, report.after["top1"], report.after["top5"]
    yield from map(_tile, report.others)
    yield (
        "validation accuracy" if report.others else "top-1 accuracy",
        f"{top1['value']:.2%}",
        f"95 % interval {top1['low']:.1%} to {top1['high']:.1%}, {after['images']:,} pictures",
    )
    majority = after["majority"]
    yield "majority baseline", f"{majority['value']:.2%}", f"by always answering {majority['label']!r}"
    if len(report.matrix) > 5:
        yield "top-5 accuracy", f"{top5['value']:.2%}", f"{top5['low']:.1%} to {top5['high']:.1%}"
    yield "macro F1", f"{after['macro_f1']:.3f}", "mean over the classes"
    before = report.before
    chance = f"{after['ece_by_chance']:.2%} by chance alone"
    yield "NLL", f"{after['nll']:.4f}", _change(report, f"{before['nll']:.4f}")
    yield "calibration error", f"{after['ece']:.2%}", chance + "; " + _change(report, f"{before['ece']:.2%}")
    yield "validation pictures", f"{after['images']:,}", f"{len(report.matrix)} classes"
    seconds = sum(row.get("seconds", 0.0) for row in report.history)
    if seconds:
        yield "training time", _duration(seconds), f"{len(report.history)} epochs"


def _tile(accuracy: Accuracy) -> tuple[str, str, str]:
    (low, high), majority = accuracy.interval or (0.0, 1.0), accuracy.majority or {}
    return (
        f"{accuracy.name} accuracy",
        f"{accuracy.value:.2%}",
        f"95 % interval {low:.1%} to {high:.1%}, {accuracy.pictures}, {accuracy.role}; always answering "
        f"{majority.get('label')!r} has {majority.get('value', 0.0):.2%}",
    )


def _change(report: _Report, before: str) -> str:
    if report.calibration is None:
        return "of calibrated predictions"
    return (
        f"{before} before the temperature of {report.temperature:.3g}" if report.calibration.kept else "temperature 1"
    )


def _matrix(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return each true class with count and share of its row for every prediction.

    The page has it as a table, as browsers draw every script and emoji: the fonts of a drawing don't.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = zip(labels, matrix.tolist(), shares.tolist(), strict=True)
    return [(label, list(zip(counts, row, strict=True))) for label, counts, row in rows]


def _confusions(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> Iterator[tuple[str, str, int, float]]:
    """Yield true class, predicted class, count, and share of the true class, for the most frequent confusions."""
    wrong = matrix - np.diag(np.diag(matrix))
    for place in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]:
        truth, predicted = divmod(int(place), len(labels))
        count = int(wrong[truth, predicted])
        if count:
            yield labels[truth], labels[predicted], count, count / int(matrix[truth].sum())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
