"""95 % confidence intervals and tests of measured values: Student's t, ratios over rounds, proportions in pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# Two-sided 95 % quantiles for 1 to 30 degrees of freedom.
_STUDENT_95 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)

# Ends of the interval of ratios that have nothing in common; their exponential might overflow.
_LARGEST = math.log(1e6)


def student_95(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t; above 30 degrees of freedom that of 30, which is larger."""
    return _STUDENT_95[min(freedom, len(_STUDENT_95)) - 1]


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean ratio, by Student's t of the logarithms; None of fewer than two ratios.

    Args:
        ratios: positive; each of two measurements of the same round, so that the machine's drift cancels out.
    """
    if len(ratios) < 2 or min(ratios) <= 0:
        return None
    logarithms = [math.log(ratio) for ratio in ratios]
    half = student_95(len(ratios) - 1) * statistics.stdev(logarithms) / math.sqrt(len(ratios))
    mean = statistics.fmean(logarithms)
    return math.exp(max(mean - half, -_LARGEST)), math.exp(min(mean + half, _LARGEST))


def tie(interval: tuple[float, float] | None) -> bool:
    """Return True if the rounds can't tell the two apart: the interval of their ratio contains 1."""
    return interval is not None and interval[0] <= 1 <= interval[1]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927); 0 to 1 without trials."""
    if not trials:
        return 0.0, 1.0
    z, share = 1.959964, successes / trials
    centre, scale = share + z * z / (2 * trials), 1 + z * z / trials
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of equal error rates (McNemar 1947).

    Args:
        only_first: trials of which only the first was right.
        only_second: trials of which only the second was right.
    """
    pairs, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(pairs, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / (1 << pairs))
