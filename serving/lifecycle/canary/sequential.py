"""Sequential test of a share against a limit: it may be looked at after every event without more false alarms.

Events are bad or good. For an alternative share q, the likelihood ratio of q and the limit is multiplied up event by
event. If the true share is on the limit's side of the null hypothesis, whatever happened before, this product is a
supermartingale with mean 1 at most, and so is the mean of the products of several alternatives. By Ville's inequality
it then reaches 1/alpha at any time with probability alpha at most: an e-process (Ramdas, Grünwald, Vovk and Shafer
2023, "Game-theoretic statistics and safe anytime-valid inference"; the products are those of Wald 1945, and their mean
is the method of mixtures of Robbins 1970). The alternatives are all on one side of the limit, so that the null
hypothesis may be one-sided.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FARTHER = np.array([1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4])
"""Alternatives above the limit, as shares of the way from it to 1."""

_NEARER = np.array([1 / 16, 1 / 4, 1 / 2, 3 / 4])
"""Alternatives below the limit, as shares of it."""

_LARGEST = 700.0
"""Greatest logarithm of an e-value that is shown: e to it is still a number."""

Count = int | npt.NDArray[np.int_]
Evidence = npt.NDArray[np.float64]
"""E-values, of the shape of the counts."""


def evidence_above(bad: Count, total: Count, limit: float) -> Evidence:
    """Return the e-value against the hypothesis that the share of bad events is at most `limit`.

    Args:
        bad: number of bad events.
        total: number of events.
        limit: share, above 0 and below 1.
    """
    return _mixture(bad, total, limit, limit + (1 - limit) * _FARTHER)


def evidence_below(bad: Count, total: Count, limit: float) -> Evidence:
    """Return the e-value against the hypothesis that the share of bad events is at least `limit`.

    Args: as for `evidence_above`.
    """
    return _mixture(bad, total, limit, limit * _NEARER)


def _mixture(bad: Count, total: Count, limit: float, shares: Evidence) -> Evidence:
    failures = np.asarray(bad, np.float64)[..., np.newaxis]
    successes = np.asarray(total, np.float64)[..., np.newaxis] - failures
    logs = failures * np.log(shares / limit) + successes * np.log((1 - shares) / (1 - limit))
    largest = logs.max(axis=-1)
    mean = np.log(np.exp(logs - largest[..., np.newaxis]).mean(axis=-1))
    return np.asarray(np.exp(np.minimum(largest + mean, _LARGEST)))
