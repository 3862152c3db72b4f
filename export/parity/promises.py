"""Promises of serving from the images of a proof: fitted again if these images tell more than those before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.parity.images import Integers
from export.parity.metrics import UNLABELLED
from export.runtime import Logits
from models.bundle.bundle import PROMISES, Bundle
from models.bundle.promises import (
    Promises,
    fit_promises,
    fit_without_labels,
    knows_photographs,
    read_promises,
    write_promises,
)
from models.common.errors import HalftoneError


def lacks_promises(bundle: Bundle, data: Path | None) -> bool:
    """Return True if the bundle has no promises, and a proof on this data would fit some."""
    return bundle.manifest.trained and not bundle.has(PROMISES) and (data is not None or knows_photographs(bundle))


def keep_promises(bundle: Bundle, logits: Logits, labels: Integers, photographs: int, data: Path | None) -> None:
    """Fit the promises on the images of a proof, and write them into the bundle if they are from more pictures.

    Without labels, only a model of ImageNet gets some, from the sample photographs. Random weights get none.

    Args:
        bundle: the opened bundle.
        logits: float32 (N, C) of the reference.
        labels: int64 (N,), `UNLABELLED` for a crop.
        photographs: number of the pictures that all images are crops of.
        data: folder of the labelled pictures; None for the sample photographs.
    """
    if not bundle.manifest.trained or not np.isfinite(logits).all():
        return
    known, earlier = labels != UNLABELLED, _earlier(bundle)
    command = f"python -m export.parity --model {bundle.name}"
    if data is not None:
        if earlier is None or earlier.origin == "sample photographs" or earlier.images < known.sum():
            promises = fit_promises(logits[known], labels[known], bundle.manifest.temperature)
            write_promises(bundle, promises, made_by=f"`{command} --data {data}`")
    elif earlier is None and knows_photographs(bundle):
        write_promises(bundle, fit_without_labels(logits, photographs), made_by=f"`{command}`")


def _earlier(bundle: Bundle) -> Promises | None:
    try:
        return read_promises(bundle)
    except HalftoneError:
        # Damaged: they are made again.
        return None
