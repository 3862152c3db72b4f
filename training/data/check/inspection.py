"""Inspection of a data set by frozen features: doublets, wrong labels, outliers, classes that look alike, odd sizes.

The features cost about 12 ms of a core an image. No network is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.preprocess.resample import Pixels
from training.data.check.doublets import Thumbnails, grouped, near_pairs
from training.data.check.duplicates import Place, equal_places, parts
from training.data.check.features import Extractor
from training.data.check.labels import Judgement, judge_labels
from training.data.check.outliers import find_outliers
from training.data.check.reading import Reading, read_all
from training.data.check.sizes import Sizes, measure_sizes
from training.data.pictures import Data


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found; images are numbered in the order of `places`."""

    places: list[Place]
    """All images that can be read."""

    reading: Reading
    """Unreadable images, and hashes."""

    equal: list[tuple[int, int]]
    """Images of the same pixels, the earlier first."""

    near: list[tuple[int, int]]
    """Images that differ little, such as copies in another size."""

    judgement: Judgement
    """Labels."""

    outliers: list[int]
    """Images far from all others, the farthest first."""

    sizes: Sizes
    """Sizes and shapes."""


def inspect(data: Data) -> Inspection:
    """Read every image of all parts and look for what hurts training or makes its figures wrong."""
    collected = _Collector()
    reading = read_all(data, collected.add)
    number = {place: index for index, place in enumerate(collected.places)}
    everything = parts(data)
    targets = np.array([everything[part].targets[index] for part, index in collected.places], dtype=np.int64)
    components = collected.extractor.components()
    equal = [(number[twin], number[place]) for twin, place in equal_places(reading.hashes)]
    near = near_pairs(collected.thumbnails.pixels(), components, known=equal)
    together = grouped(len(targets), equal + near)
    return Inspection(
        places=collected.places,
        reading=reading,
        equal=equal,
        near=near,
        judgement=judge_labels(components, targets, together, classes=len(data.train.labels)),
        outliers=find_outliers(components, together),
        sizes=measure_sizes(np.array(collected.sizes, dtype=np.int64).reshape(-1, 2)),
    )


class _Collector:
    """What is kept of each image."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.sizes: list[tuple[int, ...]] = []
        self.extractor, self.thumbnails = Extractor(), Thumbnails()

    def add(self, place: Place, pixels: Pixels) -> None:
        self.places.append(place)
        self.sizes.append(pixels.shape[:2])
        self.extractor.add(pixels)
        self.thumbnails.add(pixels)
