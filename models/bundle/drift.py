"""`drift.json`: what the pictures of a proof look like and how the model answers them, for comparison with later ones.

A profile is four histograms, so that it takes some hundred bytes and holds no picture. Two profiles are compared by the
two-sample Kolmogorov-Smirnov test (numbers) and the chi-square test of homogeneity (classes), with Bonferroni's
correction for the four tests. Both tests know how few pictures a proof may have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from models.common.statistics import homogeneity_p, ks_distance, ks_p, total_variation
from models.common.strict_json import json_object

DRIFT = "drift.json"
SCHEMA = 1

Measure = Literal["class", "confidence", "brightness", "contrast"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
"""Predicted class; its probability, 0 to 1; mean and standard deviation of the model's pixels, 0 to 255."""

CELLS: Mapping[Measure, int] = {"confidence": 20, "brightness": 32, "contrast": 32}
"""Cells of a histogram of equal width. A coarse one hides what rounding does to an answer, not what pictures do."""

CHANCE = 0.001
"""Chance that pictures like those of the proof are said to differ, at most."""

LEAST = 0.1
"""Least distance that is said to matter: many pictures make any difference significant."""

_LAST = np.array([*CELLS.values()]) - 1
_SCALES = np.array([*CELLS.values()]) / (1, 256, 128)
_GRID = 16
"""About this many pixels of each row and column are looked at."""

Counts = npt.NDArray[np.int64]


class Comparison(NamedTuple):
    """Result of one of the tests."""

    distance: float
    """Largest difference of the distribution functions, or for classes total variation; 0 to 1."""

    p: float
    """Chance of such a difference in any of the tests if the pictures are alike, at most 1."""

    @property
    def differs(self) -> bool:
        """True if the pictures differ: the difference is neither chance nor small."""
        return self.distance >= LEAST and self.p < CHANCE


def cells(pixels: npt.NDArray[np.uint8], logits: npt.NDArray[np.floating], temperature: float) -> Counts:
    """Return the place (N, 4) of each image in the histograms of `MEASURES`.

    Args:
        pixels: uint8 (N, S, S, 3), the model's input.
        logits: (N, C), finite.
        temperature: the model's.
    """
    step = max(1, pixels.shape[1] // _GRID)
    seen = pixels[:, ::step, ::step].reshape(len(pixels), -1).astype(np.float64)
    # In few operations: serving does it for one image at a time, and each takes microseconds.
    mean = seen.sum(axis=1) / seen.shape[1]
    variance = np.einsum("ij,ij->i", seen, seen) / seen.shape[1] - mean * mean
    best = logits.argmax(axis=1)
    highest = logits[np.arange(len(logits)), best, np.newaxis]
    confidence = 1 / np.exp((logits - highest) / temperature).sum(axis=1)
    values = np.stack([confidence, mean, np.sqrt(np.maximum(variance, 0))], axis=1) * _SCALES
    return np.column_stack([best, np.minimum(values, _LAST).astype(np.int64)])


@dataclass(frozen=True, eq=False)
class Profile:
    """Histograms of some pictures.

    Raises:
        ValueError: the histograms are not of the same pictures, or there is no picture.
    """

    counts: Mapping[Measure, Counts]
    """Pictures in each cell: for `class` (C,), for the others (`CELLS`,)."""

    def __post_init__(self) -> None:
        totals = {int(self.counts[measure].sum()) for measure in MEASURES}
        right = all(len(self.counts[measure]) == number for measure, number in CELLS.items())
        if len(totals) != 1 or not right or min(int(each.min()) for each in self.counts.values()) < 0:
            raise ValueError("the histograms do not fit each other")
        if totals == {0}:
            raise ValueError("there are no pictures")

    @property
    def pictures(self) -> int:
        """Number of the pictures, at least 1."""
        return int(self.counts["class"].sum())

    @classmethod
    def of(cls, places: Counts, classes: int) -> Self:
        """Return the profile of images.

        Args:
            places: int64 (N, 4) with N >= 1, as `cells` returns them.
            classes: number of the model's classes.
        """
        sizes = {"class": classes} | dict(CELLS)
        return cls(
            {
                measure: np.bincount(places[:, column], minlength=sizes[measure])
                for column, measure in enumerate(MEASURES)
            }
        )

    def compare(self, others: Profile) -> dict[Measure, Comparison]:
        """Return how far other pictures are from these, by each measure."""
        found: dict[Measure, Comparison] = {}
        for measure in MEASURES:
            ours, theirs = self.counts[measure], others.counts[measure]
            if measure == "class":
                distance, p = total_variation(ours, theirs), homogeneity_p(ours, theirs)
            else:
                distance = ks_distance(ours, theirs)
                p = ks_p(distance, self.pictures, others.pictures)
            found[measure] = Comparison(distance, min(1.0, len(MEASURES) * p))
        return found

    def to_json(self) -> bytes:
        """Return the profile as UTF-8 JSON."""
        counts = {measure: self.counts[measure].tolist() for measure in MEASURES}
        return (json.dumps({"schema": SCHEMA, "counts": counts}) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, classes: int) -> Self:
        """Parse the output of `to_json` for a model with this number of classes.

        Raises:
            HalftoneError: the data holds no profile of this schema.
        """
        try:
            values = json_object(data)
            if values["schema"] != SCHEMA:
                raise ValueError("another schema version")
            lists = {measure: values["counts"][measure] for measure in MEASURES}
            if not all(type(count) is int for each in lists.values() for count in each):
                raise ValueError("a count is no integer")
            counts = {measure: np.array(each, np.int64) for measure, each in lists.items()}
            if len(counts["class"]) != classes:
                raise ValueError(f"it has {len(counts['class'])} classes, and the model {classes}")
            return cls(counts)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise HalftoneError(f"not a profile of pictures ({error})") from None


def read_profile(bundle: Bundle) -> Profile | None:
    """Return the profile of the pictures that a bundle was proved on; None if it has none for its present weights.

    Raises:
        HalftoneError: the file is missing or damaged.
    """
    data = bundle.read_present(DRIFT)
    if data is None:
        return None
    try:
        return Profile.from_json(data, len(bundle.manifest.labels))
    except HalftoneError as error:
        raise HalftoneError(f"{bundle.folder / DRIFT} can't be used: {error}; {bundle.repair(DRIFT)}") from None


def write_profile(bundle: Bundle, profile: Profile, *, made_by: str) -> None:
    """Write the profile, made by this command, into the bundle."""
    bundle.write(DRIFT, profile.to_json(), made_by=made_by, made_from=[WEIGHTS])
