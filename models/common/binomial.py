"""Exact binomial tail and interval (Clopper and Pearson 1934); numpy only.

The Wilson interval of `models.common.statistics` is shorter, but for shares near 0 or 1 it falls below its level: a
promise about rare errors needs the exact one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_STEPS = 60
"""Halvings of [0, 1]: more than a float distinguishes."""


def binomial_cdf(successes: int, trials: int, share: float) -> float:
    """Return P(X <= successes) for X ~ Binomial(trials, share).

    Args:
        successes: 0 or more.
        trials: 0 or more.
        share: in [0, 1].
    """
    if successes >= trials or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    steps = np.arange(1, successes + 1)
    # Logarithms of the binomial coefficients: each is the one before times (trials - i + 1) / i.
    coefficients = np.concatenate(([0.0], np.cumsum(np.log((trials - steps + 1) / steps))))
    counts = np.arange(successes + 1)
    terms = coefficients + counts * math.log(share) + (trials - counts) * math.log1p(-share)
    highest = terms.max()
    return min(1.0, float(np.exp(highest + math.log(np.exp(terms - highest).sum()))))


def exact_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided exact interval of a proportion; (0, 1) without trials.

    Args:
        successes: 0 to `trials`.
        trials: 0 or more.
        level: probability that the interval holds the true proportion, at least; in (0, 1).
    """
    tail = (1 - level) / 2
    low = _root(lambda share: 1 - binomial_cdf(successes - 1, trials, share) > tail) if successes else 0.0
    high = _root(lambda share: binomial_cdf(successes, trials, share) < tail) if successes < trials else 1.0
    return low, high


def _root(above: Callable[[float], bool]) -> float:
    """Return the share from which on a monotone condition holds."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) else (middle, high)
    return (low + high) / 2
