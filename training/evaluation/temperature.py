"""Temperature scaling of the logits, kept only if its gain is more than noise.

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
from training.evaluation.metrics import Targets, negative_log_likelihood

Logits = npt.NDArray[np.float32]

LEVEL = 0.05
"""Chance that a temperature is kept although the model is calibrated without one."""

LOWEST, HIGHEST = 0.02, 50.0
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Fitted temperature and the evidence for it."""

    fitted: float
    """Temperature that minimises the loss on the held-out images."""

    pictures: int
    """Number of these images."""

    p: float
    """Chance of at least such a gain in likelihood if the model is calibrated without a temperature."""

    @property
    def kept(self) -> bool:
        """True if the gain is more than noise."""
        return self.p < LEVEL

    @property
    def temperature(self) -> float:
        """The fitted temperature if it is kept, else 1."""
        return self.fitted if self.kept else 1.0

    def __str__(self) -> str:
        source = f"fitted on {self.pictures:,} held-out pictures (p = {self.p:.1g})"
        if self.kept:
            return f"temperature {self.temperature:.3g}, {source}"
        return f"temperature 1: one of {self.fitted:.3g}, {source}, would gain no more than noise"


def calibrate(logits: Logits, targets: Targets) -> Calibration:
    """Fit a temperature, and test its gain by the likelihood ratio, which allows for the fit on the same images.

    A comparison on the folds of a cross-validation needs more than twice the images to keep a temperature that helps.

    Args:
        logits: float32 (N, C) of held-out images.
        targets: int64 (N,).

    Raises:
        HalftoneError: a logit is NaN or infinite.
    """
    fitted = fit_temperature(logits, targets)
    before, after = (negative_log_likelihood(softmax(logits, value), targets) for value in (1.0, fitted))
    # Twice the gain has a chi-squared distribution with one degree of freedom (Wilks 1938).
    return Calibration(
        fitted=fitted, pictures=len(targets), p=math.erfc(math.sqrt(max(0.0, len(targets) * (before - after))))
    )


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
        raise HalftoneError(
            "some logits are NaN or infinite, so no temperature fits them: train again with a lower --head-lr and "
            "--backbone-lr, or with --amp off"
        )
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
