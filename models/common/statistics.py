"""Statistics shared by training's evaluation and export's parity gate; numpy only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]

_WINDOW = 20
"""Probabilities of a binomial distribution beyond this many square roots of its trials (40 standard deviations) are too
small for a float."""


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Probabilities:
    """Convert logits (N, C) to probabilities (N, C) that sum to one in every row, in double precision."""
    shifted = logits.astype(np.float64) / temperature
    exponents = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def rate(successes: float, trials: float) -> dict[str, float]:
    """Return a proportion with its 95 % interval (Wilson 1927, score interval); from 0 to 1 if there are no trials."""
    if trials == 0:
        return {"value": 0.0, "low": 0.0, "high": 1.0}
    z, share = 1.959964, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    low = centre - half if successes else 0.0
    return {"value": share, "low": max(0.0, low), "high": min(1.0, centre + half) if successes < trials else 1.0}


def mcnemar_p(only_reference: int, only_variant: int) -> float:
    """Return the exact two-sided p-value of equal error rates of two classifiers (McNemar 1947, binomial form).

    Args:
        only_reference: number of images that only the reference classifies correctly.
        only_variant: number of images that only the variant classifies correctly.
    """
    return min(1.0, 2 * sign_test_p(max(only_reference, only_variant), min(only_reference, only_variant)))


def sign_test_p(worse: int, better: int) -> float:
    """Return the exact one-sided p-value of a sign test: P(X >= worse) for X ~ Binomial(worse + better, 1/2).

    Args:
        worse: number of pairs that speak against the null hypothesis that both signs are equally likely.
        better: number of pairs with the other sign; ties are in neither.
    """
    pairs = worse + better
    centre = (pairs + 1) // 2
    if worse < centre:
        return 1.0 - sign_test_p(better + 1, worse - 1) if worse else 1.0
    # Probabilities from the centre outwards, relative to that of the centre: their sum makes up for the scale.
    steps = np.arange(1, min(pairs - centre, _WINDOW * math.isqrt(pairs) + _WINDOW) + 1)
    half = np.cumprod(np.concatenate(([1.0], (pairs - centre - steps + 1) / (centre + steps))))
    whole = 2 * half.sum() - (pairs % 2 == 0)
    return float(half[worse - centre :].sum() / whole)
