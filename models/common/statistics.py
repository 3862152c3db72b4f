"""The statistics that training's evaluation and export's parity judge by; numpy only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
    """Probabilities (N, C) of logits (N, C) that sum to one in every row, in double precision."""
    shifted = logits.astype(np.float64) / temperature
    exponents = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def rate(successes: int, trials: int) -> dict[str, float]:
    """A proportion with its 95 % interval (Wilson 1927, score interval); all zero to one where there are no trials."""
    if trials == 0:
        return {"value": 0.0, "low": 0.0, "high": 1.0}
    z, share = 1.959964, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return {"value": share, "low": max(0.0, centre - half), "high": min(1.0, centre + half)}


def mcnemar_p(only_reference: int, only_variant: int) -> float:
    """Two-sided exact p-value that two classifiers err equally often (McNemar 1947, binomial form).

    Args:
        only_reference: pictures that the reference alone gets right.
        only_variant: pictures that the variant alone gets right.
    """
    discordant = only_reference + only_variant
    tail = sum(math.comb(discordant, k) for k in range(min(only_reference, only_variant) + 1))
    return min(1.0, float(2 * tail / 2**discordant)) if discordant else 1.0
