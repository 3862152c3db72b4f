"""Outliers: images whose frozen features are far from those of all others (Ramaswamy, Rastogi and Shim 2000)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 5

FAR = 3.5
"""Robust z-score of the distance from which an image is an outlier (Iglewicz and Hoaglin 1993)."""

BLOCK = 256


def find_outliers(components: npt.NDArray[np.float32], groups: npt.NDArray[np.int64]) -> list[int]:
    """Return the indices of outliers, the farthest first, by the mean distance to the nearest neighbours.

    Args:
        components: float32 (N, K), of `Extractor.components`.
        groups: int64 (N,), equal for doublets, which are no neighbours.
    """
    if len(components) <= NEIGHBOURS:
        return []
    # Distances differ by factors.
    distance = np.log(np.maximum(_to_neighbours(components, groups), 1e-6))
    deviation = np.abs(distance - np.median(distance))
    score = 0.6745 * (distance - np.median(distance)) / max(float(np.median(deviation)), 1e-6)
    order = np.argsort(-score, kind="stable")
    return [int(index) for index in order[score[order] > FAR]]


def _to_neighbours(components: npt.NDArray[np.float32], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the mean distance of each image to its nearest neighbours outside its group."""
    squares = (components**2).sum(axis=1)
    found = np.empty(len(components), dtype=np.float32)
    for start in range(0, len(components), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = squares[rows, None] + squares - 2 * components[rows] @ components.T
        distances[groups[rows, None] == groups] = np.inf
        nearest = np.partition(distances, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        found[rows] = np.sqrt(np.clip(nearest, 0, np.finfo(np.float32).max)).mean(axis=1)
    return found
