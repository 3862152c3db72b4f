"""Order in which labels teach most: pictures of which the model was unsure, and unlike those before them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.preprocess.collected import Answer


def uncertainty(answer: Answer) -> float:
    """Return 1 less the margin of the two best probabilities; 1 if something else than the model doubts the answer."""
    if answer.unfamiliar or answer.reason in ("unfamiliar", "disagree"):
        return 1.0
    first, second = [*(probability for _, probability in answer.predictions), 0.0][:2]
    return 1.0 - (first - second)


def spread_order(uncertain: npt.NDArray[np.float64], components: npt.NDArray[np.float32], *, most: int) -> list[int]:
    """Return the order of up to `most` pictures: the next has the greatest uncertainty times distance to those before.

    This is farthest-first traversal (Gonzalez 1985), weighted. Of pictures that are alike, the later ones come last.

    Args:
        uncertain: (N,) in 0..1.
        components: float32 (N, K) of `Extractor.components`.
        most: 1 or more.
    """
    order = [int(np.argmax(uncertain))]
    distance = np.full(len(uncertain), np.inf)
    # Pictures of equal features, or of no uncertainty at all, still have an order.
    weight = np.maximum(uncertain, 1e-3)
    while len(order) < min(most, len(uncertain)):
        distance = np.minimum(distance, np.linalg.norm(components - components[order[-1]], axis=1))
        score = weight * (distance + 1e-9)
        score[order] = -1
        order.append(int(np.argmax(score)))
    return order
