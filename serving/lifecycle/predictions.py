"""Convert a model's logits to the predictions of a response, and to what is promised of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from export.runtime import Logits
from models.bundle.manifest import Manifest
from models.bundle.promises import Promises
from models.common.conformal import quantile, set_size
from models.common.novelty import familiarity


class Prediction(TypedDict):
    """One class of a response."""

    label: str
    index: int
    probability: float


Members = dict[str, Any]
"""Members of a response for one image: `predictions`, and what the bundle promises of them."""


class _Ranked(NamedTuple):
    order: npt.NDArray[np.intp]
    """Class indices, the most probable first."""

    probabilities: npt.NDArray[np.float32]
    """In this order."""


def top_predictions(manifest: Manifest, top_k: int) -> Callable[[Logits], list[Prediction]]:
    """Return a function from the logits (classes,) of one image to its most probable classes, best first.

    Args:
        manifest: holds the labels, and the temperature that calibrates the probabilities.
        top_k: number of predictions, 1 to the number of classes.
    """

    def predictions(logits: Logits) -> list[Prediction]:
        return _named(manifest.labels, _ranked(logits, manifest.temperature), top_k)

    return predictions


def answers(
    manifest: Manifest, top_k: int, promises: Promises | None, coverage: float | None = None
) -> Callable[[Logits], Members]:
    """Return a function from the logits (classes,) of one image to its members of a response.

    Args:
        manifest: as for `top_predictions`.
        top_k: as for `top_predictions`.
        promises: of the bundle; None if it has none.
        coverage: of the prediction set, which the promises allow; None for their own.
    """
    labels, temperature = manifest.labels, manifest.temperature
    if promises is None:
        return lambda logits: {"predictions": _named(labels, _ranked(logits, temperature), top_k)}
    threshold, familiar = promises.threshold, promises.familiar
    share = promises.coverage if coverage is None else coverage
    limit = quantile(promises.quantiles, share)

    def answer(logits: Logits) -> Members:
        ranked = _ranked(logits, temperature)
        members: Members = {"predictions": _named(labels, ranked, top_k)}
        if threshold is not None:
            members["confident"] = bool(ranked.probabilities[0] >= threshold)
        if familiar is not None:
            members["unfamiliar"] = bool(familiarity(logits) < familiar)
        if limit is not None:
            chosen = ranked.order[: set_size(ranked.probabilities, limit)].tolist()
            members["prediction_set"] = {"coverage": share, "labels": [labels[index] for index in chosen]}
        return members

    return answer


def _ranked(logits: Logits, temperature: float) -> _Ranked:
    exponents = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-logits, kind="stable")
    return _Ranked(order, (exponents / exponents.sum())[order])


def _named(labels: tuple[str, ...], ranked: _Ranked, top_k: int) -> list[Prediction]:
    order, probabilities = ranked.order[:top_k].tolist(), ranked.probabilities[:top_k].tolist()
    return [
        Prediction(label=labels[i], index=i, probability=probability)
        for i, probability in zip(order, probabilities, strict=True)
    ]
