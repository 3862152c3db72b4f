"""Promises and profile of the images of a proof, for serving: made again if there are more images than before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from export.parity.images import Integers
from export.parity.metrics import UNLABELLED
from export.runtime import Logits
from models.bundle.bundle import PROMISES, Bundle
from models.bundle.drift import DRIFT, Counts, Profile, read_profile, write_profile
from models.bundle.promises import (
    fit_promises,
    fit_without_labels,
    knows_photographs,
    read_promises,
    write_promises,
)
from models.common.errors import HalftoneError

Kept = TypeVar("Kept")


def lacks_promises(bundle: Bundle, data: Path | None) -> bool:
    """Return True if the bundle has no promises or no profile, and a proof on this data would make them."""
    if not bundle.manifest.trained:
        return False
    if data is None:
        return not bundle.has(PROMISES) and knows_photographs(bundle)
    return not (bundle.has(PROMISES) and bundle.has(DRIFT))


def keep_promises(bundle: Bundle, logits: Logits, labels: Integers, photographs: int, data: Path | None) -> None:
    """Fit the promises on the images of a proof, and write them into the bundle if they are from more pictures.

    Without labels, only a model of ImageNet gets some, from the sample photographs. Random weights get none.

    Args:
        bundle: the opened bundle.
        logits: float32 (N, C) of the reference, finite.
        labels: int64 (N,), `UNLABELLED` for a crop.
        photographs: number of the pictures that all images are crops of.
        data: folder of the labelled pictures; None for the sample photographs.
    """
    if not bundle.manifest.trained:
        return
    known, earlier = labels != UNLABELLED, _unless_damaged(read_promises, bundle)
    command = f"python -m export.parity --model {bundle.name}"
    if data is not None:
        if earlier is None or earlier.origin == "sample photographs" or earlier.images < known.sum():
            promises = fit_promises(logits[known], labels[known], bundle.manifest.temperature)
            write_promises(bundle, promises, made_by=f"`{command} --data {data}`")
    elif earlier is None and knows_photographs(bundle):
        write_promises(bundle, fit_without_labels(logits, photographs), made_by=f"`{command}`")


def keep_profile(bundle: Bundle, places: Counts, labels: Integers, data: Path | None) -> None:
    """Write the profile of the labelled pictures of a proof into the bundle, if they are more than before.

    Crops are left out, because clients send whole pictures. The sample photographs give no profile, and random weights
    get none.

    Args:
        bundle: the opened bundle.
        places: int64 (N, 4) as `models.bundle.drift.cells` returns them for the reference.
        labels: int64 (N,), `UNLABELLED` for a crop.
        data: folder of the labelled pictures; None for the sample photographs.
    """
    known = labels != UNLABELLED
    if not bundle.manifest.trained or data is None or not known.any():
        return
    earlier = _unless_damaged(read_profile, bundle)
    if earlier is None or earlier.pictures < known.sum():
        profile = Profile.of(places[known], len(bundle.manifest.labels))
        write_profile(bundle, profile, made_by=f"`python -m export.parity --model {bundle.name} --data {data}`")


def _unless_damaged(read: Callable[[Bundle], Kept | None], bundle: Bundle) -> Kept | None:
    try:
        return read(bundle)
    except HalftoneError:
        # Damaged: it is made again.
        return None
