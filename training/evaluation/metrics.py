"""Classification metrics of predicted probabilities, for evaluation and the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.common.statistics import rate
from training.evaluation.calibration import error_by_chance, expected_calibration_error

Probabilities = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]

TINY = float(np.finfo(np.float64).tiny)


def classification_metrics(probabilities: Probabilities, targets: Targets, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return all metrics, JSON-ready.

    Args:
        probabilities: float64 (N, C), rows that sum to 1.
        targets: int64 (N,).
        labels: C class names.

    Returns:
        `images`; `top1` and `top5` as {"value", "low", "high"} with a 95 % Wilson interval; `nll` in nats; `ece`
        and `ece_by_chance`, see `error_by_chance`; `majority`, see below; `macro_f1` over the classes that occur;
        `classes`: one entry per class, see `per_class`.
    """
    classes = per_class(confusion(probabilities.argmax(axis=1), targets, len(labels)), labels)
    seen = [item["f1"] for item in classes if item["images"]]
    return {
        "images": len(targets),
        "top1": rate(int(in_best(probabilities, targets, 1).sum()), len(targets)),
        "top5": rate(int(in_best(probabilities, targets, 5).sum()), len(targets)),
        "majority": majority(targets, labels),
        "nll": negative_log_likelihood(probabilities, targets),
        "ece": expected_calibration_error(probabilities, targets),
        "ece_by_chance": error_by_chance(probabilities),
        "macro_f1": float(np.mean(seen)) if seen else 0.0,
        "classes": classes,
    }


def majority(targets: Targets, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the accuracy of always answering the most frequent class: its `label`, and its share as `value`."""
    counts = np.bincount(targets, minlength=len(labels))
    most = int(counts.argmax())
    return {"label": labels[most], "value": float(counts[most] / max(1, len(targets)))}


def in_best(probabilities: Probabilities, targets: Targets, k: int) -> npt.NDArray[np.bool_]:
    """Return bool (N,): True if the true class is among the k most likely; ties go to the lower index."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.asarray((order == targets[:, None]).any(axis=1))


def negative_log_likelihood(probabilities: Probabilities, targets: Targets) -> float:
    """Return the mean negative log-probability of the true classes, in nats."""
    true = probabilities[np.arange(len(targets)), targets]
    # Not below 0: rounding makes a probability of 1 slightly more, and the negative of 0 prints as -0.0000. NaN stays.
    return abs(float(-np.log(np.maximum(true, TINY)).mean())) if len(targets) else 0.0


def confusion(predicted: npt.NDArray[np.int64], targets: Targets, classes: int) -> npt.NDArray[np.int64]:
    """Return int64 (C, C): the number of images by true class (row) and predicted class (column)."""
    return np.bincount(targets * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: npt.NDArray[np.int64], labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one entry per class: `label`, `images`, `precision`, `recall`, `f1`, `taken_for`.

    An undefined ratio is 0. `taken_for` is the most frequent wrong prediction, or empty.

    Args:
        matrix: the confusion matrix, int64 (C, C).
        labels: C class names.
    """
    correct, images, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    entries = []
    for index, label in enumerate(labels):
        wrong = matrix[index].copy()
        wrong[index] = 0
        entries.append(
            {
                "label": label,
                "images": int(images[index]),
                "precision": _share(correct[index], predicted[index]),
                "recall": _share(correct[index], images[index]),
                "f1": _share(2 * correct[index], images[index] + predicted[index]),
                "taken_for": labels[int(wrong.argmax())] if wrong.any() else "",
            }
        )
    return entries


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
