"""Selective classification: the confidence from which on answers are wrong at most at a promised rate.

Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks" (arXiv:1705.08500), with the fixed-sequence
tests of "Learn then Test" (Angelopoulos et al., arXiv:2110.01052, section 3.2): thresholds are tested from the highest
to the lowest, and the first that fails ends the sequence. So the tests need no correction for the number of thresholds.
A sequence that starts among few images may end by one unlucky error. Therefore up to `MOST_STARTS` sequences start at
different numbers of images, each with its part of the chance of a wrong promise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.common.binomial import binomial_cdf, exact_interval

ERROR = 0.01
"""Promised error of confident answers, at most."""

CHANCE = 0.025
"""Chance of a wrong promise, at most: beyond the upper end of a two-sided 95 % interval."""

MOST_STARTS = 4
_GROWTH = 1.01


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Threshold of confident answers, with what it selects of the images that it was fitted on."""

    threshold: float
    """Least probability of the answer's class, in [0, 1]."""

    answered: int
    """Images with such an answer."""

    interval: tuple[float, float]
    """Of the error among them, exact and simultaneous for all sequences, 95 % or more."""


def select(
    confidence: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], *, error: float = ERROR
) -> Selection | None:
    """Return the lowest threshold for which the tests allow the promise; None if they allow it for none.

    Args:
        confidence: (N,) probability of each answer.
        correct: bool (N,).
        error: share of the confident answers that may be wrong, in (0, 1).
    """
    order = np.argsort(-confidence, kind="stable")
    falling, wrong = confidence[order], np.cumsum(~correct[order])
    starts = _starts(len(falling), error)
    chance = CHANCE / max(1, len(starts))
    certified = 0
    for start in starts:
        for count in _counts(-falling, start):
            if binomial_cdf(int(wrong[count - 1]), count, error) > chance:
                break
            certified = max(certified, count)
    if not certified:
        return None
    return Selection(
        threshold=float(falling[certified - 1]),
        answered=certified,
        interval=exact_interval(int(wrong[certified - 1]), certified, 1 - 2 * chance),
    )


def fewest(error: float = ERROR, chance: float = CHANCE) -> int:
    """Return the number of confident images, all correct, that allow the promise."""
    return math.ceil(math.log(chance) / math.log1p(-error))


def _starts(images: int, error: float) -> list[int]:
    """Return the numbers of images at which sequences start: each twice the one before, as far as there are images."""
    for starts in range(MOST_STARTS, 0, -1):
        first = fewest(error, CHANCE / starts)
        if first << (starts - 1) <= images:
            return [first << step for step in range(starts)]
    return []


def _counts(rising: npt.NDArray[np.floating], start: int) -> Iterator[int]:
    """Yield growing numbers of images; those with equal values stay together."""
    count = start
    while count <= len(rising):
        count = int(np.searchsorted(rising, rising[count - 1], side="right"))
        yield count
        count = max(count + 1, int(count * _GROWTH))
