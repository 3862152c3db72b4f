"""Convert a model's logits to the predictions of a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np

from export.runtime import Logits
from models.bundle.manifest import Manifest


class Prediction(TypedDict):
    """One class of a response."""

    label: str
    index: int
    probability: float


def top_predictions(manifest: Manifest, top_k: int) -> Callable[[Logits], list[Prediction]]:
    """Return a function from the logits (classes,) of one image to its most probable classes, best first.

    Args:
        manifest: holds the labels, and the temperature that calibrates the probabilities.
        top_k: number of predictions, 1 to the number of classes.
    """
    labels, temperature = manifest.labels, manifest.temperature

    def predictions(logits: Logits) -> list[Prediction]:
        exponents = np.exp((logits - logits.max()) / temperature)
        probabilities = exponents / exponents.sum()
        order = np.argsort(-logits, kind="stable")[:top_k].tolist()
        return [
            Prediction(label=labels[i], index=i, probability=probability)
            for i, probability in zip(order, probabilities[order].tolist(), strict=True)
        ]

    return predictions
