"""What a trick brings: the paired difference of accuracies over seeds and pictures, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

METHOD = (
    "95 % t interval of the paired difference, with seeds and pictures as crossed random effects: its variance is the "
    "sum of those of the means by seed and by picture, its degrees of freedom are Satterthwaite's"
)

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Difference of two accuracies, in shares."""

    value: float
    low: float
    high: float

    by_seed: tuple[float, ...]
    """The difference with each seed."""


def paired_effect(with_trick: Right, without: Right) -> Effect:
    """Return how much more accurate the runs with a trick are.

    The pictures are the same for each seed, so that neither all pairs of seed and picture nor the seeds alone are
    independent. The sum of the two variances is a little too large rather than too small (Owen 2007, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1(2)).

    Args:
        with_trick: bool (S, N): right answers with S seeds on N pictures.
        without: the same without the trick.

    Returns:
        With a single seed, an interval that knows nothing of how seeds differ.
    """
    from scipy.stats import t

    differences = with_trick.astype(np.float64) - without
    by_seed, by_picture = differences.mean(axis=1), differences.mean(axis=0)
    terms = [
        (float(means.var(ddof=1)) / len(means), len(means) - 1) for means in (by_seed, by_picture) if len(means) > 1
    ]
    variance = sum(term for term, _ in terms)
    half = 0.0
    if variance > 0:
        freedom = variance**2 / sum(term**2 / degrees for term, degrees in terms)
        half = float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    value = float(differences.mean())
    return Effect(
        value=value, low=max(-1.0, value - half), high=min(1.0, value + half), by_seed=tuple(map(float, by_seed))
    )
