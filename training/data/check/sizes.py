"""Sizes and shapes of images: their spread, and those that stand out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NARROW = 3.0
"""Ratio of the sides from which the centre crop sees a third of an image or less."""

SMALL = 0.25
"""Part of the median short side below which an image is small."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of all readable images."""

    spread: list[tuple[str, float, float, float]]
    """Name, least, median and greatest value of width, height (pixels) and ratio (width by height)."""

    odd: dict[int, str]
    """Description by index of an image that is narrow or small."""


def measure_sizes(sizes: npt.NDArray[np.int64]) -> Sizes:
    """Describe the sizes.

    Args:
        sizes: int64 (N, 2), height and width in pixels.
    """
    if not len(sizes):
        return Sizes(spread=[], odd={})
    height, width = sizes.T
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    measured = (("width", width), ("height", height), ("width / height", width / height))
    spread = [(name, float(values.min()), float(np.median(values)), float(values.max())) for name, values in measured]
    odd = {int(index): f"narrow: {width[index]} x {height[index]}" for index in np.flatnonzero(long >= NARROW * short)}
    for index in np.flatnonzero(short < SMALL * np.median(short)):
        odd.setdefault(int(index), f"small: {width[index]} x {height[index]}")
    return Sizes(spread=spread, odd=odd)
