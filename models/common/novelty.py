"""Novelty detection: images that are unlike those of the training, by the energy of their logits.

Liu et al., "Energy-based Out-of-distribution Detection" (arXiv:2010.03759). The score is the negative energy at
temperature 1: high for familiar images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FALSE_ALARMS = 0.05
"""Share of familiar images below the threshold, at most; the usual operating point of published comparisons."""

Scores = npt.NDArray[np.float64]


def familiarity(logits: npt.NDArray[np.floating]) -> Scores:
    """Return the logarithm of the sum of the exponentials of the logits (…, C), as float64 (…,)."""
    highest = logits.max(axis=-1, keepdims=True)
    return np.asarray(highest[..., 0] + np.log(np.exp(logits - highest).sum(axis=-1, dtype=np.float64)))


def novelty_threshold(scores: Scores, share: float = FALSE_ALARMS) -> float | None:
    """Return the score that a further familiar image is below with a probability of at most `share`.

    Args:
        scores: (N,) of held-out images.
        share: in (0, 1).

    Returns:
        None if N is less than 1 / share - 1, with which nothing can be promised.
    """
    place = int(share * (len(scores) + 1) + 1e-9)
    return float(np.sort(scores)[place - 1]) if place else None


def auroc(familiar: Scores, foreign: Scores) -> float:
    """Return the probability that a familiar image has a higher score than a foreign one; ties count half."""
    ordered = np.sort(familiar)
    below = np.searchsorted(ordered, foreign, side="left") + np.searchsorted(ordered, foreign, side="right")
    return float(1 - below.sum() / (2 * len(familiar) * len(foreign)))
