"""A loaded model: picture bytes in, named probabilities out."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from export.record import ParityRecord
from export.runtimes.base import Logits, Runtime
from models.manifest import Manifest
from models.preprocess import load


class Prediction(TypedDict):
    """One class of an answer."""

    label: str
    index: int
    probability: float


class Classifier:
    """A proven variant of a bundle, ready to answer; `classify` may be called from several threads at once.

    Args:
        manifest: of the bundle.
        runtime: the loaded variant.
        record: its proof.
        max_pixels: ceiling on a picture's width x height.
    """

    def __init__(self, manifest: Manifest, runtime: Runtime, record: ParityRecord, *, max_pixels: int) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.version = manifest.version
        self.variant = record.variant
        self.record = record
        self._runtime = runtime
        self._max_pixels = max_pixels

    def classify(self, data: bytes, top_k: int) -> list[Prediction]:
        """The `top_k` most probable classes, best first.

        Args:
            data: a JPEG, PNG or WebP file.
            top_k: 1 to the number of classes.

        Raises:
            ImageError: the bytes can't be turned into pixels.
        """
        pixels = load(data, self.manifest.input, max_pixels=self._max_pixels)
        probabilities = _softmax(self._runtime.run(pixels[np.newaxis])[0] / self.manifest.temperature)
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        labels = self.manifest.labels
        return [Prediction(label=labels[i], index=int(i), probability=float(probabilities[i])) for i in best]


def _softmax(logits: Logits) -> Logits:
    exponents = np.exp(logits - logits.max())
    return np.asarray(exponents / exponents.sum())
