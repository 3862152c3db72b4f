"""Rare classes: weights for the loss, chances for the sampler, and the warning that says when to use them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.data.pictures import Targets

MUCH_RARER = 3.0
"""The largest class over the smallest above which the user is warned."""


def class_weights(targets: Targets, classes: int) -> npt.NDArray[np.float32]:
    """Factors on the loss by class, inversely proportional to how frequent the class is.

    Args:
        targets: int64 (N,).
        classes: C.

    Returns:
        float32 (C,); the mean over the pictures is 1, so the loss keeps its size. 0 for a class without pictures.
    """
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(targets) / (present.sum() * counts[present])
    return weights.astype(np.float32)


def sampling_weights(targets: Targets, classes: int) -> npt.NDArray[np.float64]:
    """The chance of every picture to be drawn when all classes are to be seen equally often.

    Args:
        targets: int64 (N,).
        classes: C.

    Returns:
        float64 (N,) that sums to 1.
    """
    weights = class_weights(targets, classes).astype(np.float64)[targets]
    return np.asarray(weights / weights.sum())


def imbalance_warning(targets: Targets, labels: tuple[str, ...]) -> str | None:
    """A sentence for the user where the largest class has over three times the pictures of the smallest, else None."""
    counts = np.bincount(targets, minlength=len(labels))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] <= MUCH_RARER * counts[least]:
        return None
    return (
        f"the classes are uneven: {labels[most]!r} has {counts[most]} training pictures, {labels[least]!r} has "
        f"{counts[least]}; add --balance sampler (every class is seen equally often) or --balance weights (rare "
        "classes count more in the loss), and judge by the report's per-class table rather than by accuracy alone"
    )
