"""Expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599).

On few images it is never 0: with n correct answers at random in a bin, confidence and accuracy differ. Therefore the
error of a perfectly calibrated model is computed beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Targets = npt.NDArray[np.int64]

DRAWS = 300
"""Simulated sets of images, which give their mean error to about a hundredth of it."""


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Images grouped by the confidence of the prediction."""

    count: npt.NDArray[np.int64]
    """int64 (bins,): images per group."""

    confidence: npt.NDArray[np.float64]
    """float64 (bins,): mean probability of the predicted class, 0..1; 0 in an empty group."""

    accuracy: npt.NDArray[np.float64]
    """float64 (bins,): share of correct predictions, 0..1; 0 in an empty group."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy over the images, 0..1."""
        total = int(self.count.sum())
        return float((self.count * np.abs(self.confidence - self.accuracy)).sum() / total) if total else 0.0


def reliability(probabilities: npt.NDArray[np.floating], targets: Targets, bins: int = 15) -> Bins:
    """Group the images by confidence, into bins of equal width.

    Args:
        probabilities: (N, C), rows that sum to 1.
        targets: int64 (N,).
        bins: number of groups.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == targets
    group = _bin(confidence, bins)
    count = np.bincount(group, minlength=bins)
    divisor = np.maximum(count, 1)
    return Bins(
        count=count,
        confidence=np.bincount(group, confidence, minlength=bins) / divisor,
        accuracy=np.bincount(group, correct, minlength=bins) / divisor,
    )


def expected_calibration_error(probabilities: npt.NDArray[np.floating], targets: Targets, bins: int = 15) -> float:
    """Return the mean |confidence - accuracy| over the images, 0..1; arguments as for `reliability`."""
    return reliability(probabilities, targets, bins).error


def error_by_chance(probabilities: npt.NDArray[np.floating], bins: int = 15) -> float:
    """Return the mean error of a perfectly calibrated model with these confidences on as many images, 0..1.

    The answers are drawn at random, each right with the probability of its confidence; the seed is fixed.

    Args:
        probabilities: (N, C), rows that sum to 1.
        bins: as for `reliability`.
    """
    if not len(probabilities):
        return 0.0
    confidence = probabilities.max(axis=1).astype(np.float64)
    group = _bin(confidence, bins)
    expected = np.bincount(group, confidence, minlength=bins)
    draw = np.random.default_rng(0)
    errors = [
        np.abs(np.bincount(group, draw.random(len(group)) < confidence, minlength=bins) - expected).sum()
        for _ in range(DRAWS)
    ]
    return float(np.mean(errors) / len(group))


def _bin(confidence: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.int64]:
    """Return the number of each image's bin; upper bounds belong to their bin, as in Guo et al."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
