"""Near doublets: images that differ little, such as copies in another size, compression, brightness, or mirrored.

Two images are near if their thumbnails correlate, as they are or mirrored, and their features agree roughly. A copy of
which a part is cut off is not found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.preprocess.resample import Pixels
from models.preprocess.transform import fit
from models.spec import InputSpec

SIDE = 16
"""Side of a thumbnail in pixels."""

CORRELATION = 0.994
"""Least correlation of two thumbnails; docs/training.md has what was measured."""

AGREEMENT = 0.3
"""Least cosine of the principal components of two images: it tells apart plain and smooth images."""

BLOCK = 256

_SPEC = InputSpec(size=SIDE, interpolation="bilinear", crop_fraction=1.0)

Pair = tuple[int, int]


class Thumbnails:
    """Small versions of images that are given one by one."""

    def __init__(self) -> None:
        self._found: list[Pixels] = []

    def add(self, pixels: Pixels) -> None:
        """Take uint8 RGB (H, W, 3)."""
        self._found.append(fit(pixels, _SPEC))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Return all, uint8 (N, SIDE, SIDE, 3)."""
        return np.array(self._found, dtype=np.uint8).reshape(-1, SIDE, SIDE, 3)


def near_pairs(
    thumbnails: npt.NDArray[np.uint8], components: npt.NDArray[np.float32], *, known: Sequence[Pair]
) -> list[Pair]:
    """Return pairs of near images, the earlier first; each image is in one pair with an earlier image at most.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3).
        components: float32 (N, K), of `Extractor.components`.
        known: pairs of equal images, whose later ones are left out.
    """
    plain, mirrored, features = _directions(thumbnails), _directions(thumbnails[:, :, ::-1]), _unit(components)
    left_out = np.zeros(len(plain), dtype=bool)
    left_out[[later for _, later in known]] = True
    pairs: list[Pair] = []
    for start in range(0, len(plain), BLOCK):
        rows = slice(start, start + BLOCK)
        earlier = slice(0, start + BLOCK)
        alike = _correlation(plain[rows], plain[earlier], mirrored[earlier])
        alike[features[rows] @ features[earlier].T < AGREEMENT] = 0
        # An image has no pair with itself or a later one.
        alike = np.tril(alike, start - 1)
        alike[:, left_out[earlier]] = 0
        best = alike.argmax(axis=1)
        found = np.flatnonzero((alike[np.arange(len(best)), best] >= CORRELATION) & ~left_out[rows])
        pairs += [(int(best[row]), start + int(row)) for row in found]
    return pairs


def near_others(
    thumbnails: npt.NDArray[np.uint8], components: npt.NDArray[np.float32] | None, mine: npt.NDArray[np.bool_]
) -> dict[int, int]:
    """Return for each image of one set the most alike of the others, if it is near.

    Args:
        thumbnails: uint8 (N, SIDE, SIDE, 3).
        components: as for `near_pairs`; None to compare thumbnails alone, which finds a few more.
        mine: bool (N,), True for the images of the set.
    """
    plain, mirrored = _directions(thumbnails), _directions(thumbnails[:, :, ::-1])
    features = None if components is None else _unit(components)
    chosen, others = np.flatnonzero(mine), np.flatnonzero(~mine)
    found: dict[int, int] = {}
    for start in range(0, len(chosen) if len(others) else 0, BLOCK):
        rows = chosen[start : start + BLOCK]
        alike = _correlation(plain[rows], plain[others], mirrored[others])
        if features is not None:
            alike[features[rows] @ features[others].T < AGREEMENT] = 0
        best = alike.argmax(axis=1)
        near = alike[np.arange(len(rows)), best] >= CORRELATION
        found |= {int(row): int(others[place]) for row, place in zip(rows[near], best[near], strict=True)}
    return found


def grouped(count: int, pairs: Sequence[Pair]) -> npt.NDArray[np.int64]:
    """Return a number for each of `count` images, int64, equal if pairs connect them.

    Args:
        count: of the images.
        pairs: each image is the later one of one pair at most, and the earlier of any number.
    """
    numbers = np.arange(count)
    # In this order the earlier image has its number already.
    for first, later in sorted(pairs, key=lambda pair: pair[1]):
        numbers[later] = numbers[first]
    return numbers


def _directions(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    return _unit(flat - flat.mean(axis=1, keepdims=True))


def _correlation(
    rows: npt.NDArray[np.float32], plain: npt.NDArray[np.float32], mirrored: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    return np.asarray(np.maximum(rows @ plain.T, rows @ mirrored.T), dtype=np.float32)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), dtype=np.float32)
