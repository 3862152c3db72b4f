"""Intervals of means over crops: crops of one photograph are not independent of each other.

A mean over 320 crops of eight photographs varies as one over far fewer pictures does. What is counted here is counted
by photograph ("cluster"); where each image is a picture of its own, the intervals are the ordinary ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.common.statistics import rate

DRAWS = 1000
"""Resamples of the bootstrap."""

BLOCK = 1_000_000
"""Photographs drawn at once."""

RARE = 0.01
"""Share of the resamples that lie beyond a bound."""

Values = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.int64]


def design_effect(values: Values, clusters: Clusters) -> float:
    """Return how many times the variance of the mean is that of as many independent values (Kish 1965), at least 1.

    Args:
        values: float64 (N,).
        clusters: int64 (N,) number of the photograph of each value.
    """
    sums, sizes = _totals(values - values.mean() if len(values) else values, clusters)
    count, total = len(sizes), float(np.square(values - values.mean()).sum()) if len(values) else 0.0
    if count < 2 or count == len(values) or not total:
        return 1.0
    return max(1.0, float(np.square(sums).sum()) * count / (count - 1) / total)


def clustered_rate(successes: npt.NDArray[np.bool_], clusters: Clusters, spread: Values) -> dict[str, float]:
    """Return a proportion with a 95 % Wilson interval for the effective number of images (Korn and Graubard 1998).

    Args:
        successes: bool (N,).
        clusters: int64 (N,) number of the photograph of each image.
        spread: float64 (N,) a quantity whose design effect is used if all images agree: the agreement itself then
            shows no difference between photographs, however few they are.
    """
    every = bool(successes.all()) or not successes.any()
    effect = design_effect(spread if every else successes.astype(np.float64), clusters)
    return rate(float(successes.sum()) / effect, len(successes) / effect)


def mean_interval(values: Values, clusters: Clusters) -> dict[str, float]:
    """Return the 95 % interval of a mean by the percentile bootstrap over photographs (Efron 1979), low and high.

    `lowest` and `highest` are what one in a hundred resamples falls below and exceeds.
    """
    sums, sizes = _totals(values, clusters)
    if not len(sizes):
        return dict.fromkeys(("low", "high", "lowest", "highest"), 0.0)
    # A fixed seed: the same proof gives the same record.
    generator = np.random.default_rng(0)
    means = np.empty(DRAWS)
    # Blocks of a few megabytes, whatever the number of photographs.
    for block in np.array_split(means, max(1, DRAWS * len(sizes) // BLOCK)):
        chosen = generator.integers(0, len(sizes), (len(block), len(sizes)))
        block[:] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    low, high, lowest, highest = np.quantile(means, (0.025, 0.975, RARE, 1 - RARE))
    return {"low": float(low), "high": float(high), "lowest": float(lowest), "highest": float(highest)}


def _totals(values: Values, clusters: Clusters) -> tuple[Values, Values]:
    members = np.unique(clusters, return_inverse=True)[1]
    return np.bincount(members, values).astype(np.float64), np.bincount(members).astype(np.float64)
