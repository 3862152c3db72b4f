"""The reference's logits, kept while the process runs.

An export proves its variants in several steps on the same images, and the reference is the slowest network in each.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from export.runtime import Logits, Pixels, Runtime
from models.bundle.bundle import WEIGHTS, Bundle

BATCHES = 64
"""Batches whose logits are kept: 8 MB with 1,000 classes and 32 images each."""

_kept: OrderedDict[bytes, Logits] = OrderedDict()


def reference_logits(bundle: Bundle, reference: Runtime, pixels: Pixels) -> Logits:
    """Return the logits of a batch, float32 (N, classes), from `reference` or from an earlier proof by this process.

    Args:
        bundle: its weights, architecture, input and members decide the logits, with the pixels.
        reference: the loaded reference of the bundle.
        pixels: uint8 (N, S, S, 3).
    """
    manifest = bundle.manifest
    decides = f"{manifest.files[WEIGHTS].sha256} {manifest.architecture} {manifest.input} {manifest.members} "
    key = hashlib.sha256(f"{decides}{pixels.shape}".encode() + pixels.tobytes()).digest()
    if key not in _kept:
        _kept[key] = reference.run(pixels)
    _kept.move_to_end(key)
    while len(_kept) > BATCHES:
        _kept.popitem(last=False)
    # The caller's own: what it does to the array must not change a later proof.
    return _kept[key].copy()
