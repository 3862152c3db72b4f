"""Confidence calibration: temperature scaling and the expected calibration error.

Guo et al., "On Calibration of Modern Neural Networks" (arXiv:1706.04599). Dividing all logits by one number changes the
confidence of a prediction, but not its class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.common.errors import HalftoneError
from models.common.statistics import softmax

Logits = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]

LOWEST, HIGHEST = 0.02, 50.0
TOLERANCE = 1e-4


def fit_temperature(logits: Logits, targets: Targets) -> float:
    """Fit the temperature that minimises the negative log-likelihood of the true classes on held-out images.

    If every prediction is correct, the likelihood grows until the temperature reaches zero. Therefore 1 / (N + 2) of
    each target is spread over all classes, after Platt's correction for small sets (1999). The effect is negligible
    with thousands of images.

    Args:
        logits: float32 (N, C).
        targets: int64 (N,).

    Returns:
        A number in [0.02, 50]; 1 without images.

    Raises:
        HalftoneError: a logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise HalftoneError("some logits are NaN or infinite, so no temperature fits them: train again with --amp off")
    if not len(logits):
        return 1.0
    count, classes = logits.shape
    scores = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True)
    # Every row has mean zero, so the mean score of the smoothed targets is the scaled score of the true classes.
    target_score = (1 - 1 / (count + 2)) * scores[np.arange(count), targets].mean() if classes > 1 else 0.0
    return 1 / _root(scores, target_score, 1 / HIGHEST, 1 / LOWEST)


def _root(scores: npt.NDArray[np.float64], target_score: float, low: float, high: float) -> float:
    """Find the inverse temperature with this expected score, by bisection on a logarithmic scale.

    The expected score grows with the inverse temperature because the log-likelihood is concave in it: the root is the
    optimum.
    """
    while high / low > 1 + TOLERANCE:
        middle = math.sqrt(low * high)
        expected = (softmax(scores, 1 / middle) * scores).sum(axis=1).mean()
        low, high = (middle, high) if expected < target_score else (low, middle)
    return math.sqrt(low * high)


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
    # Upper bounds belong to their bin, as in Guo et al.
    group = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
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
