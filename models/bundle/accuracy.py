"""Accuracy of a trained bundle: of those in its manifest, the one that flatters least, and what it is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMES = {"test": "test", "cv": "cross-validated", "val": "validation"}
"""Prefix of the metrics to the name, the least flattering first."""

_ROLES = {
    "test": "which chose nothing",
    "cv": "each answered by a head that was trained on the other folds",
    "val": "which chose the epoch, so it flatters",
}


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy on one part of the data."""

    name: str
    """`test`, `validation`, or for training images something like `5-fold cross-validated`."""

    value: float
    """In 0..1."""

    interval: tuple[float, float] | None
    """95 % interval; None in a bundle of an earlier version, as for what follows."""

    pictures: str | None
    """Number and part, such as `240 training pictures`."""

    role: str
    """What the figure is to be read with."""

    majority: dict[str, Any] | None
    """`label` and `value`: accuracy of always answering the most frequent class."""


def known(metrics: dict[str, Any]) -> list[Accuracy]:
    """Return the accuracies in `training.metrics`, the least flattering first."""
    return [_accuracy(metrics, part) for part in NAMES if f"{part}_top1" in metrics]


def best_known(metrics: dict[str, Any]) -> Accuracy | None:
    """Return the accuracy that flatters least of those in `training.metrics`; None if there is none."""
    return next(iter(known(metrics)), None)


def _accuracy(metrics: dict[str, Any], part: str) -> Accuracy:
    interval, count = metrics.get(f"{part}_top1_interval"), metrics.get(f"{part}_pictures")
    return Accuracy(
        name=f"{metrics['cv_folds']}-fold {NAMES[part]}" if part == "cv" else NAMES[part],
        value=metrics[f"{part}_top1"],
        interval=None if interval is None else (interval[0], interval[1]),
        pictures=None if count is None else f"{count:,} {'training' if part == 'cv' else NAMES[part]} pictures",
        role=_ROLES[part],
        majority=metrics.get(f"{part}_majority"),
    )


def in_words(metrics: dict[str, Any]) -> str:
    """Return the accuracy that flatters least as text, with what it is to be read with."""
    best = best_known(metrics)
    if best is None:
        return "its accuracy is not recorded"
    accuracy = f"{best.name} top-1 {best.value:.2%}"
    if best.interval is None or best.majority is None:
        return accuracy
    low, high = best.interval
    return (
        f"{accuracy} (95 % interval {low:.1%} to {high:.1%}; {best.pictures}, {best.role}; always answering "
        f"{best.majority['label']!r} has {best.majority['value']:.2%})"
    )
