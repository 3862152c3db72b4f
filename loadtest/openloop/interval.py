"""Confidence interval of a latency percentile of a queue, whose latencies are not independent.

A request that waits behind a burst waits as long as its neighbours do, so that thousands of requests may tell as little
as dozens of independent ones. `python -m loadtest.openloop.simulation` shows how often the interval is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from loadtest.client.load import percentile
from loadtest.reporting.intervals import student_95

SECTIONS = 3
"""Parts of a run whose percentiles are compared: few, since each has to be much longer than the queue's bursts."""

LEAST_INDEPENDENT = 150
"""Least number of independent latencies that a run has to be worth."""

_BATCHES = 20

Latencies = npt.NDArray[np.float64]


def interval(values: Sequence[float], percent: float) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of a percentile of positive latencies in the order of their requests.

    By sectioning (Asmussen and Glynn, Stochastic Simulation, 2007, section III.5; Nakayama, ACM TOMACS 24(4), 2014):
    the percentiles of consecutive sections vary around that of the whole run, and Student's t of their logarithms,
    which are less skewed, gives the width.

    Returns:
        Lower and upper end; None if the run is too short for any: a section has no request beyond the percentile, a
        percentile is infinite, or the run is worth fewer than `LEAST_INDEPENDENT` independent latencies.
    """
    length = len(values) // SECTIONS
    if length * (100 - percent) < 100 or independent(values) < LEAST_INDEPENDENT:
        return None
    parts = [values[length * number : length * (number + 1)] for number in range(SECTIONS)]
    whole, *sections = (percentile(part, percent) for part in (values, *parts))
    if not all(0 < value < math.inf for value in (whole, *sections)):
        return None
    squares = sum(math.log(section / whole) ** 2 for section in sections)
    half = student_95(SECTIONS - 1) * math.sqrt(squares / (SECTIONS - 1) / SECTIONS)
    return whole * math.exp(-half), whole * math.exp(half)


def independent(values: Sequence[float]) -> float:
    """Return the number of independent values whose mean rank varies as much as that of these values.

    By batch means (Schmeiser, Operations Research 30(3), 1982). Of ranks, because neither a few slow responses nor
    failures, which are infinite, may decide.
    """
    size = len(values) // _BATCHES
    if not size:
        return 0.0
    ranks = _ranks(np.asarray(values, np.float64))
    means = ranks[: size * _BATCHES].reshape(_BATCHES, size).mean(axis=1)
    between = float(means.var(ddof=1))
    return _BATCHES * float(ranks.var()) / between if between else float(len(values))


def _ranks(values: Latencies) -> Latencies:
    """Return the ranks of the values; equal ones share their mean rank, so that their order in time doesn't count."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[positions])
