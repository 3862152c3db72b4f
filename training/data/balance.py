"""Class imbalance: weights for the loss, probabilities for the sampler, and a warning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.config.recipe import Balance
from training.data.pictures import Targets

MUCH_RARER = 3.0
"""The user is warned if the largest class has more than this multiple of the smallest one's images."""


@dataclass(frozen=True, kw_only=True)
class Balancing:
    """Effect of `--balance` on a run; at most one field is set."""

    loss_weights: npt.NDArray[np.float32] | None = None
    """See `class_weights`."""

    sampling_weights: npt.NDArray[np.float64] | None = None
    """See `sampling_weights`."""

    warning: str | None = None
    """Of uneven classes that nothing balances."""


def balancing(balance: Balance, targets: Targets, labels: tuple[str, ...]) -> Balancing:
    """Apply the setting to the training images.

    Args:
        balance: the setting.
        targets: int64 (N,).
        labels: C class names.
    """
    if balance == "weights":
        return Balancing(loss_weights=class_weights(targets, len(labels)))
    if balance == "sampler":
        return Balancing(sampling_weights=sampling_weights(targets, len(labels)))
    return Balancing(warning=imbalance_warning(targets, labels))


def class_weights(targets: Targets, classes: int) -> npt.NDArray[np.float32]:
    """Return factors on the loss by class, inversely proportional to the number of images of the class.

    Args:
        targets: int64 (N,).
        classes: C.

    Returns:
        float32 (C,); the mean over the images is 1, so the loss keeps its scale. 0 for a class without images.
    """
    counts = np.bincount(targets, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(targets) / (present.sum() * counts[present])
    return weights.astype(np.float32)


def sampling_weights(targets: Targets, classes: int) -> npt.NDArray[np.float64]:
    """Return the probability of drawing each image, such that all classes are drawn equally often.

    Args:
        targets: int64 (N,).
        classes: C.

    Returns:
        float64 (N,) that sums to 1.
    """
    weights = class_weights(targets, classes).astype(np.float64)[targets]
    return np.asarray(weights / weights.sum())


def imbalance_warning(targets: Targets, labels: tuple[str, ...]) -> str | None:
    """Return a warning if the largest class has over three times as many images as the smallest, else None."""
    counts = np.bincount(targets, minlength=len(labels))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] <= MUCH_RARER * counts[least]:
        return None
    return (
        f"the classes are uneven: {labels[most]!r} has {counts[most]} training pictures, {labels[least]!r} has "
        f"{counts[least]}; add --balance sampler (every class is drawn equally often) or --balance weights (rare "
        "classes count more in the loss), and check the report's per-class table in addition to the accuracy"
    )
