"""Every output of a variant against the reference's: classes that no picture of the proof shows are judged, too.

The answers of a proof cover few of a thousand classes, but each picture gives a logit of every class. A class that was
exchanged for another, moved, scaled, silenced or biased shows in its own logits, whichever class is the answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from export.runtime import Logits

EXCHANGE_MARGIN = 0.005
"""A class is exchanged if its logits correlate by more than this better with another class of the reference than with
its own. Below it, two classes of the reference give the same logits, but for rounding."""

NAMED = 20
"""Most exchanged classes that the figures list."""

_ROWS = 1024
_FLOOR = 1e-3


def compare_outputs(reference: Logits, variant: Logits) -> dict[str, Any]:
    """Compare the logits of each class over the images.

    Args:
        reference: float32 (N, C), finite.
        variant: float32 (N, C), finite.

    Returns:
        `lowest_correlation`: Pearson's, of the class with the lowest; `largest_shift`: difference of the means in the
        standard deviations of the class's reference logits, of the class with the largest; each is {"value",
        "class_index"}. `scale`: slope of the variant's logits on the reference's, over all classes. `exchanged`: number
        of classes whose logits are rather another class's, and `exchanges` the first of them as {"class_index",
        "is_rather"}. `spread`: how much the reference's logits differ between images, as a share of their
        size; if it is near the resolution of a float, the rest is rounding.
    """
    ours, theirs = _standardised(reference), _standardised(variant)
    own = (ours * theirs).sum(axis=0)
    constant = (np.abs(ours).sum(axis=0) == 0) & (np.abs(theirs).sum(axis=0) == 0)
    own[constant] = 1.0
    shift = _shift(reference, variant)
    exchanges = _exchanges(ours, theirs, own)
    lowest, largest = int(own.argmin()), int(shift.argmax())
    return {
        "lowest_correlation": {"value": float(own[lowest]), "class_index": lowest},
        "largest_shift": {"value": float(shift[largest]), "class_index": largest},
        "scale": _scale(reference, variant),
        "exchanged": len(exchanges),
        "exchanges": [{"class_index": own_, "is_rather": other} for own_, other in exchanges[:NAMED]],
        "spread": _spread(reference),
    }


def _spread(logits: Logits) -> float:
    size = float(np.sqrt(np.square(logits, dtype=np.float64).mean()))
    return float(np.sqrt(logits.var(axis=0, dtype=np.float64).mean())) / size if size else 0.0


def _standardised(logits: Logits) -> npt.NDArray[np.float64]:
    """Return each class's logits with mean 0 and length 1 over the images; zeros where they are constant."""
    centred = logits.astype(np.float64)
    centred -= centred.mean(axis=0)
    lengths = np.sqrt(np.square(centred).sum(axis=0))
    return np.asarray(np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 0))


def _shift(reference: Logits, variant: Logits) -> npt.NDArray[np.float64]:
    deviations = reference.std(axis=0, dtype=np.float64)
    # A class that hardly varies has no scale of its own.
    scale = np.maximum(deviations, max(_FLOOR * float(np.sqrt(np.square(deviations).mean())), 1e-12))
    differences = variant.mean(axis=0, dtype=np.float64) - reference.mean(axis=0, dtype=np.float64)
    return np.asarray(np.abs(differences) / scale)


def _scale(reference: Logits, variant: Logits) -> float:
    """Return the slope of the centred logits: below 1 where each answer holds something of the other images."""
    ours = reference.astype(np.float64) - reference.mean(axis=0, dtype=np.float64)
    total = float(np.square(ours).sum())
    return float((ours * variant).sum()) / total if total else 1.0


def _exchanges(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], own: npt.NDArray[np.float64]
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    # In parts: the whole matrix of 21,000 classes takes 3.5 GB.
    for start in range(0, len(own), _ROWS):
        correlations = theirs[:, start : start + _ROWS].T @ ours
        best = correlations.argmax(axis=1)
        gain = correlations[np.arange(len(best)), best] - own[start : start + _ROWS]
        found += [(start + int(row), int(best[row])) for row in np.flatnonzero(gain > EXCHANGE_MARGIN)]
    return found
