"""Prediction sets that hold the true class of a promised share of the images: split conformal prediction.

The score of a class is the probability of all classes before it in falling order, plus a penalty for a late place:
regularised adaptive prediction sets (RAPS, Angelopoulos et al., arXiv:2009.14193, after APS, Romano et al.,
arXiv:2006.02544) without their random number, so that equal images have equal sets. Any fixed score gives at least the
promised coverage. This one always keeps the most probable class in the set, and is conservative only if the answers
alone are correct more often than promised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COVERAGE = 0.95
"""Promised share of the images, if no other is requested."""

PENALTY, FREE = 0.01, 5
"""Penalty of each place after the first `FREE` ones, as in the paper: it cuts the tail of a thousand classes."""

STEPS, LOWEST = 1000, 500
"""The quantiles are those of LOWEST / STEPS to (STEPS - 1) / STEPS, as far as there are images for them."""

_ROWS = 1024
_PART = 32

Floats = npt.NDArray[np.floating]


def class_scores(ordered: Floats) -> npt.NDArray[np.float64]:
    """Return the scores (…, C) of classes whose probabilities (…, C) are in falling order; they rise."""
    places = np.arange(1, ordered.shape[-1] + 1)
    before = np.zeros(ordered.shape)
    np.cumsum(ordered[..., :-1], axis=-1, dtype=np.float64, out=before[..., 1:])
    return np.asarray(before + PENALTY * np.maximum(0, places - FREE))


def true_scores(probabilities: Floats, targets: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Return the score (N,) of each image's true class.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
    """
    found = [np.empty(0)]
    # In parts: a whole set of a thousand classes would be in memory several times.
    for start in range(0, len(targets), _ROWS):
        rows = probabilities[start : start + _ROWS]
        order = np.argsort(-rows, axis=1, kind="stable")
        scores = class_scores(np.take_along_axis(rows, order, axis=1))
        place = (order == targets[start : start + _ROWS, None]).argmax(axis=1)
        found.append(scores[np.arange(len(rows)), place])
    return np.concatenate(found)


def quantiles(scores: npt.NDArray[np.float64]) -> list[float]:
    """Return the conformal quantiles of the scores of N held-out images, for rising coverages.

    Coverage k / STEPS needs the score of place ceil((N + 1) k / STEPS); the list ends where N is too small.
    """
    ordered, count = np.sort(scores), len(scores)
    places = (-(-(count + 1) * step // STEPS) for step in range(LOWEST, STEPS))
    return [float(ordered[place - 1]) for place in places if place <= count]


def quantile(values: Sequence[float], coverage: float) -> float | None:
    """Return the quantile for a coverage in (0, 1), rounded up to the next step; None if it can't be promised.

    Args:
        values: as `quantiles` returns them.
        coverage: share of the images whose set must hold the true class.
    """
    # Without the tolerance, 0.95 * 1000 could be a little above 950.
    step = max(0, math.ceil(coverage * STEPS - 1e-6) - LOWEST)
    return values[step] if step < len(values) else None


def highest_coverage(values: Sequence[float]) -> float:
    """Return the highest coverage that can be promised; 0 if there are no quantiles."""
    return (LOWEST + len(values) - 1) / STEPS if values else 0.0


def set_sizes(ordered: Floats, limit: float) -> npt.NDArray[np.int64]:
    """Return how many of the most probable classes form the set of each image, at least one.

    Args:
        ordered: (N, C) probabilities in falling order.
        limit: the quantile.
    """
    return np.asarray(np.maximum(1, (class_scores(ordered) <= limit).sum(axis=-1)))


def set_size(ordered: Floats, limit: float) -> int:
    """Return `set_sizes` of one image (C,), in a fraction of its time if the set is small.

    Every answer of the service needs it: without arrays, it takes a microsecond.
    """
    before, size = 0.0, 0
    for start in range(0, len(ordered), _PART):
        for probability in ordered[start : start + _PART].tolist():
            if size and before + PENALTY * max(0, size + 1 - FREE) > limit:
                return size
            before += probability
            size += 1
    return size
