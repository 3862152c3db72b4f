"""The wrong answers that the model was surest of, as pictures: mislabelled data shows here first."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.preprocess.decode import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit
from models.spec import InputSpec
from training.data.pictures import Pictures

MOST = 24
THUMBNAIL = 224
"""Longest side of a picture in the report, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One wrong answer."""

    name: str
    """The picture's name."""

    truth: str
    """Its class."""

    truth_probability: float
    """What the model gave its class, 0..1."""

    answer: str
    """What the model took it for."""

    answer_probability: float
    """How sure it was, 0..1."""

    png: bytes
    """The picture as the network saw it."""


def worst_mistakes(
    probabilities: npt.NDArray[np.float64],
    targets: npt.NDArray[np.int64],
    pictures: Pictures,
    spec: InputSpec,
    most: int = MOST,
) -> list[Mistake]:
    """Wrong answers, those first whose probability exceeds the true class's most; unreadable pictures are left out.

    Args:
        probabilities: float64 (N, C) for the pictures.
        targets: int64 (N,).
        pictures: the N pictures.
        spec: what the network sees of them.
        most: number of mistakes shown.
    """
    answers = probabilities.argmax(axis=1)
    rows = np.arange(len(targets))
    excess = probabilities[rows, answers] - probabilities[rows, targets]
    wrong = np.flatnonzero(answers != targets)
    mistakes: list[Mistake] = []
    for index in wrong[np.argsort(-excess[wrong], kind="stable")]:
        if len(mistakes) == most:
            break
        try:
            pixels = fit(pictures.read(int(index)), spec)
        except ImageError:
            continue
        truth, answer = int(targets[index]), int(answers[index])
        mistakes.append(
            Mistake(
                name=pictures.name(int(index)),
                truth=pictures.labels[truth],
                truth_probability=float(probabilities[index, truth]),
                answer=pictures.labels[answer],
                answer_probability=float(probabilities[index, answer]),
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
