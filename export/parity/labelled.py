"""Accuracy of a variant and of the reference on labelled pictures: a test of non-inferiority, and one of each class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from export.parity.renaming import find_renaming
from export.runtime import Logits
from models.common.statistics import mcnemar_p, rate, sign_test_p

Classes = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]

CLASS_ALPHA = 0.01
"""Chance that an equal variant is refused for any of its classes (Holm 1979)."""

_Z = 1.6448536269514722
"""One-sided 95 % quantile of the normal distribution."""

_MOST = 10**8


def compare_accuracy(reference: Logits, variant: Logits, labels: Classes) -> dict[str, Any]:
    """Compare the answers of both with the true classes.

    Args:
        reference: float32 (N, C).
        variant: float32 (N, C); a row that is not finite is wrong.
        labels: int64 (N,) true classes.

    Returns:
        `accuracy` of both with the interval of their `difference`, `top5_accuracy`, and `classes`: those that are worse
        beyond chance, and those with too few pictures to tell; `renaming` of the reference's answers, None without one.
    """
    right, right_variant = _correct(reference, labels, 1), _correct(variant, labels, 1)
    count, worse, better = len(labels), int((right & ~right_variant).sum()), int((~right & right_variant).sum())
    return {
        "accuracy": {
            "images": count,
            "reference": rate(int(right.sum()), count),
            "variant": rate(int(right_variant.sum()), count),
            "difference": difference(worse, better, count),
            "only_reference": worse,
            "only_variant": better,
            "mcnemar_p": mcnemar_p(worse, better),
        },
        "top5_accuracy": {
            "reference": rate(int(_correct(reference, labels, 5).sum()), count),
            "variant": rate(int(_correct(variant, labels, 5).sum()), count),
        },
        "classes": _classes(right, right_variant, labels),
        "renaming": find_renaming(reference.argmax(axis=1), labels),
    }


def difference(worse: int, better: int, count: float) -> dict[str, float]:
    """Return accuracy of the variant minus that of the reference, with one-sided 95 % bounds `low` and `high`.

    The adjusted Wald interval of Bonett and Price (2012, Journal of Educational and Behavioral Statistics 37(4)) for
    paired proportions.

    Args:
        worse: number of images that only the reference classifies correctly.
        better: number of images that only the variant classifies correctly.
        count: number of images.
    """
    lost, won = (worse + 1) / (count + 2), (better + 1) / (count + 2)
    half = _Z * math.sqrt(max(0.0, lost + won - (won - lost) ** 2) / (count + 2))
    return {
        "value": (better - worse) / count,
        "low": max(-1.0, won - lost - half),
        "high": min(1.0, won - lost + half),
    }


def enough(worse: int, better: int, count: int, margin: float) -> int | None:
    """Return about how many images decide if the variant is worse by more than `margin`, at the rates seen so far.

    Returns:
        None if the rates seen so far lie so close to the margin that no number does.
    """
    images = float(count)
    while images < _MOST:
        images *= 1.1
        bounds = difference(round(worse * images / count), round(better * images / count), images)
        if bounds["low"] > -margin or bounds["high"] < -margin:
            return math.ceil(images)
    return None


def _correct(logits: Logits, labels: Classes, k: int) -> Right:
    """Return for each image if its true class is among the k best; logits that are not finite are wrong."""
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    # Equal logits rank by index, as argmax does: constant logits are not correct for every image.
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > true) | ((logits == true) & earlier)).sum(axis=1)
    return np.asarray((rank < k) & np.isfinite(logits).all(axis=1))


def _classes(right: Right, right_variant: Right, labels: Classes) -> dict[str, Any]:
    """Test each class by the exact one-sided sign test, corrected for the number of classes."""
    classes, members = np.unique(labels, return_inverse=True)
    images, known = np.bincount(members), np.bincount(members, right).astype(int)
    worse = np.bincount(members, right & ~right_variant).astype(int)
    better = np.bincount(members, ~right & right_variant).astype(int)
    chances = [sign_test_p(int(lost), int(won)) for lost, won in zip(worse, better, strict=True)]
    # A class of which the reference knows this many can be seen to be lost.
    least = math.ceil(math.log2(len(classes) / CLASS_ALPHA))
    return {
        "tested": len(classes),
        "too_few": int((known < least).sum()),
        "least_right": least,
        "worse": [
            {
                "class_index": int(classes[row]),
                "images": int(images[row]),
                "reference": float(known[row] / images[row]),
                "variant": float((known[row] - worse[row] + better[row]) / images[row]),
                "p": chances[row],
            }
            for row in _holm(chances)
        ],
    }


def _holm(chances: list[float]) -> list[int]:
    """Return the places of the p-values that Holm's step-down procedure rejects, the smallest first."""
    rejected = []
    for step, row in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        if chances[row] > CLASS_ALPHA / (len(chances) - step):
            break
        rejected.append(row)
    return rejected
