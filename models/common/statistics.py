"""Statistics shared by training's evaluation, export's parity gate and drift in serving; numpy only."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_WINDOW = 20
"""Probabilities of a binomial distribution beyond this many square roots of its trials (40 standard deviations) are too
small for a float."""

LEAST_EXPECTED = 5
"""Pictures that a cell of a chi-square test is expected to have at least (Cochran 1954)."""


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


def ks_distance(first: Counts, second: Counts) -> float:
    """Return the largest difference of the distribution functions of two histograms (K,) over the same cells."""
    return float(np.abs(np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()).max())


def ks_p(distance: float, first: int, second: int) -> float:
    """Return an upper bound of the p-value of the two-sample Kolmogorov-Smirnov test.

    It is the first term of the asymptotic series (Smirnov 1939), whose terms alternate. For values in cells, the test
    errs on the safe side (Noether 1963).

    Args:
        distance: as `ks_distance` returns it.
        first: size of one sample.
        second: size of the other one.
    """
    return min(1.0, 2 * math.exp(-2 * first * second / (first + second) * distance**2))


def total_variation(first: Counts, second: Counts) -> float:
    """Return half the sum of the absolute differences of the shares of two histograms (K,), 0 to 1."""
    return float(np.abs(first / first.sum() - second / second.sum()).sum() / 2)


def homogeneity_p(first: Counts, second: Counts) -> float:
    """Return the p-value of the chi-square test that two histograms (K,) are of one distribution (Pearson 1911).

    Cells with an expected number below `LEAST_EXPECTED` are counted together; 1 if fewer than two cells are left.
    """
    sizes = int(first.sum()), int(second.sum())
    table = np.stack([first, second])
    few = table.sum(axis=0) * (min(sizes) / sum(sizes)) < LEAST_EXPECTED
    table = np.column_stack([table[:, ~few], table[:, few].sum(axis=1)])
    totals = table.sum(axis=0)
    if totals[-1] * (min(sizes) / sum(sizes)) < LEAST_EXPECTED and table.shape[1] > 1:
        smallest = int(totals[:-1].argmin())
        table[:, smallest] += table[:, -1]
        table = table[:, :-1]
    if table.shape[1] < 2:
        return 1.0
    ratio = math.sqrt(sizes[1] / sizes[0])
    statistic = float((np.square(table[0] * ratio - table[1] / ratio) / table.sum(axis=0)).sum())
    return chi_square_tail(statistic, table.shape[1] - 1)


def chi_square_tail(value: float, freedom: int) -> float:
    """Return P(X >= value) for X of the chi-square distribution, by its recurrence over every second degree of freedom.

    Source: Abramowitz and Stegun 1964, 26.4.4 and 26.4.5.

    Args:
        value: 0 or more.
        freedom: degrees of freedom, 1 or more.
    """
    half = value / 2
    if half == 0:
        return 1.0
    odd = freedom % 2
    terms = (
        math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in np.arange(odd / 2, freedom / 2)
    )
    return min(1.0, (math.erfc(math.sqrt(half)) if odd else 0.0) + math.fsum(terms))
