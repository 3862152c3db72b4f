"""Statistics shared by training's evaluation and export's parity gate; numpy only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
    """Convert logits (N, C) to probabilities (N, C) that sum to one in every row, in double precision."""
    shifted = logits.astype(np.float64) / temperature
    exponents = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def rate(successes: int, trials: int) -> dict[str, float]:
    """Return a proportion with its 95 % interval (Wilson 1927, score interval); from 0 to 1 if there are no trials."""
    if trials == 0:
        return {"value": 0.0, "low": 0.0, "high": 1.0}
    z, share = 1.959964, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return {"value": share, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def mcnemar_p(only_reference: int, only_variant: int) -> float:
    """Return the exact two-sided p-value of equal error rates of two classifiers (McNemar 1947, binomial form).

    Args:
        only_reference: number of images that only the reference classifies correctly.
        only_variant: number of images that only the variant classifies correctly.
    """
    discordant = only_reference + only_variant
    tail = sum(math.comb(discordant, k) for k in range(min(only_reference, only_variant) + 1))
    return min(1.0, float(2 * tail / 2**discordant)) if discordant else 1.0
