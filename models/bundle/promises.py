"""`promises.json`: what serving says of every answer beside its probability, fitted on held-out images.

A threshold for confident answers, quantiles for prediction sets, and a threshold for unfamiliar images. The methods are
those of `models.common.selective`, `conformal` and `novelty`. The promises hold for images that are drawn like those
that they were fitted on, and not for others. Unfamiliar images are flagged, but nothing is promised for them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from models.bundle.bundle import PROMISES, WEIGHTS, Bundle
from models.common.conformal import COVERAGE, LOWEST, STEPS, quantile, quantiles, set_sizes, true_scores
from models.common.errors import HalftoneError
from models.common.novelty import familiarity, novelty_threshold
from models.common.selective import ERROR, fewest, select
from models.common.statistics import Probabilities, softmax
from models.common.strict_json import json_object

SCHEMA = 1

Logits = npt.NDArray[np.floating]
Targets = npt.NDArray[np.integer]
Origin = Literal["held-out pictures", "sample photographs"]

TENCH = "n01440764"
"""ImageNet's first class: models with it know what the sample photographs show."""


@dataclass(frozen=True, kw_only=True)
class Promises:
    """Thresholds and quantiles, with the figures of the images that they were fitted on.

    Raises:
        ValueError: a number is not finite or out of range.
    """

    images: int
    """Number of these images, or of the photographs whose crops they are."""

    origin: Origin
    """Where they come from."""

    error: float = ERROR
    """Promised error of confident answers, at most."""

    threshold: float | None = None
    """Least probability of a confident answer; None if there is nothing to promise."""

    answered: float | None = None
    """Share of the images with a confident answer."""

    error_interval: tuple[float, float] | None = None
    """95 % interval of the error among them."""

    coverage: float = COVERAGE
    """Promised coverage of the prediction sets, if no other is requested."""

    set_size: float | None = None
    """Mean number of classes in a set of that coverage; None if it can't be promised."""

    quantiles: tuple[float, ...] = ()
    """As `models.common.conformal.quantiles` returns them."""

    familiar: float | None = None
    """Least `familiarity` of the logits of a familiar image; None if there are too few images to set it."""

    note: str | None = None
    """What can't be promised and why."""

    def __post_init__(self) -> None:
        numbers = [self.threshold, self.answered, self.set_size, self.familiar, *self.quantiles]
        numbers += [self.error, self.coverage, *(self.error_interval or ())]
        if not all(each is None or (type(each) in (int, float) and math.isfinite(each)) for each in numbers):
            raise ValueError("a number is missing or not finite")
        if type(self.images) is not int or self.images < 1 or self.origin not in get_args(Origin):
            raise ValueError(f"fitted on {self.images!r} {self.origin!r}")
        if not (isinstance(self.note, str | None) and 0 < self.error < 1 and 0 < self.coverage < 1):
            raise ValueError("the note, the error or the coverage is of the wrong kind")
        if len(self.quantiles) > STEPS - LOWEST or list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("the quantiles do not rise")

    def to_json(self) -> bytes:
        """Return the promises as UTF-8 JSON."""
        return (json.dumps({"schema": SCHEMA} | asdict(self), ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the output of `to_json`.

        Raises:
            HalftoneError: the data holds no promises of this schema.
        """
        try:
            values = json_object(data)
            schema = values.pop("schema", None)
            if type(schema) is not int or schema != SCHEMA:
                raise ValueError("another schema version")
            interval = values["error_interval"]
            values["error_interval"] = interval if interval is None else tuple(interval)
            return cls(**values | {"quantiles": tuple(values["quantiles"])})
        except (ValueError, TypeError, KeyError) as error:
            raise HalftoneError(f"not a file of promises ({error})") from None

    def description(self) -> dict[str, Any]:
        """Return the promises in the form of the HTTP API."""
        named = ("images", "error", "error_interval", "answered", "threshold", "coverage", "set_size", "note")
        return {name: getattr(self, name) for name in named} | {"from": self.origin}


def read_promises(bundle: Bundle) -> Promises | None:
    """Return the promises of a bundle; None if it has none, or none for its present weights.

    Raises:
        HalftoneError: the file is missing or damaged.
    """
    data = bundle.read_present(PROMISES)
    if data is None:
        return None
    try:
        return Promises.from_json(data)
    except HalftoneError as error:
        raise HalftoneError(f"{bundle.folder / PROMISES} can't be used: {error}; {bundle.repair(PROMISES)}") from None


def write_promises(bundle: Bundle, promises: Promises, *, made_by: str) -> None:
    """Write the promises, made by this command, into the bundle."""
    bundle.write(PROMISES, promises.to_json(), made_by=made_by, made_from=[WEIGHTS])


def confidences(probabilities: Probabilities) -> npt.NDArray[np.float32]:
    """Return the probability (N,) of each answer, rounded as serving does."""
    return np.asarray(probabilities.max(axis=1), dtype=np.float32)


def fit_promises(logits: Logits, targets: Targets, temperature: float, *, error: float = ERROR) -> Promises:
    """Fit everything on labelled images that the network was not trained on.

    Args:
        logits: float32 (N, C) with N >= 1, finite.
        targets: int64 (N,) class indices.
        temperature: the model's.
        error: of confident answers, at most.
    """
    probabilities = softmax(logits, temperature)
    selection = select(confidences(probabilities), probabilities.argmax(axis=1) == targets, error=error)
    values = quantiles(true_scores(probabilities, targets))
    limit = quantile(values, COVERAGE)
    familiar = novelty_threshold(familiarity(logits))
    return Promises(
        images=len(targets),
        origin="held-out pictures",
        error=error,
        threshold=selection.threshold if selection else None,
        answered=selection.answered / len(targets) if selection else None,
        error_interval=selection.interval if selection else None,
        set_size=None if limit is None else float(set_sizes(-np.sort(-probabilities, axis=1), limit).mean()),
        quantiles=tuple(values),
        familiar=familiar,
        note=_note(len(targets), error, confident=selection is not None, sets=limit is not None),
    )


def fit_without_labels(logits: Logits, photographs: int) -> Promises:
    """Set the threshold of unfamiliar images from crops of photographs; without labels, nothing can be promised.

    Args:
        logits: float32 (N, C) of the crops.
        photographs: number of photographs that they were cut from.
    """
    return Promises(
        images=photographs,
        origin="sample photographs",
        familiar=novelty_threshold(familiarity(logits)),
        note=f"nothing is promised without labels, and `unfamiliar` is an estimate from {len(logits)} crops of "
        f"{photographs} photographs: run `python -m export.parity --data DIR` on labelled pictures",
    )


def knows_photographs(bundle: Bundle) -> bool:
    """Return True if the sample photographs are like the images that the model was trained on."""
    return TENCH in bundle.manifest.label_ids and bundle.manifest.trained


def _note(images: int, error: float, *, confident: bool, sets: bool) -> str | None:
    reasons = []
    if not confident:
        least = fewest(error)
        reasons.append(
            f"an error of at most {error:.1%} takes {least} or more held-out pictures, and there are {images}"
            if images < least
            else f"on {images} held-out pictures, no threshold keeps the error of confident answers at {error:.1%}"
        )
    if not sets:
        least = math.ceil(COVERAGE / (1 - COVERAGE) - 1e-9)
        reasons.append(f"a coverage of {COVERAGE:.0%} takes {least} or more held-out pictures, and there are {images}")
    return "; ".join(reasons) or None
