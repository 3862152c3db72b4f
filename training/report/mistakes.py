"""Wrong predictions with the highest confidence, as images; mislabelled data appears here first."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit
from models.spec import InputSpec
from training.data.pictures import Pictures

MOST = 24
THUMBNAIL = 224
"""Longest side of an image in the report, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """Wrong prediction for one image."""

    name: str
    """The image's name."""

    truth: str
    """The true class."""

    truth_probability: float
    """Probability of the true class, 0..1."""

    predicted: str
    """The predicted class."""

    predicted_probability: float
    """Probability of the predicted class, 0..1."""

    png: bytes
    """The network's input."""


def worst_mistakes(
    probabilities: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    pictures: Pictures,
    spec: InputSpec,
    most: int = MOST,
) -> list[Mistake]:
    """Return the wrong predictions whose probability exceeds that of the true class most; skip unreadable images.

    Args:
        probabilities: float64 (N, C).
        targets: int64 (N,).
        pictures: the N images.
        spec: the network's input.
        most: largest number of mistakes.
    """
    predicted = probabilities.argmax(axis=1)
    rows = np.arange(len(targets))
    excess = probabilities[rows, predicted] - probabilities[rows, targets]
    wrong = np.flatnonzero(predicted != targets)
    mistakes: list[Mistake] = []
    for index in wrong[np.argsort(-excess[wrong], kind="stable")]:
        if len(mistakes) == most:
            break
        try:
            pixels = fit(pictures.read(int(index)), spec)
        except ImageError:
            continue
        truth, taken_for = int(targets[index]), int(predicted[index])
        mistakes.append(
            Mistake(
                name=pictures.name(int(index)),
                truth=pictures.labels[truth],
                truth_probability=float(probabilities[index, truth]),
                predicted=pictures.labels[taken_for],
                predicted_probability=float(probabilities[index, taken_for]),
                png=_thumbnail(pixels),
            )
        )
    return mistakes


def _thumbnail(pixels: Pixels) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
