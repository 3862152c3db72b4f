"""Images for a parity proof: a labelled folder, or crops of the sample photographs.

Few pictures are evaluated together with crops of them: what a variant does to its outputs needs more images than
small data sets hold, and no label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from export.parity.gate import MIN_IMAGES
from export.parity.metrics import UNLABELLED
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.text import printable
from models.dataset import unseen_images
from models.preprocess.decode import decode
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit, load
from models.spec import InputSpec

PHOTOS = Path(str(files("export") / "photos"))
CROPS_PER_PHOTO = 40
MAX_UNREADABLE = 0.01

Integers = npt.NDArray[np.int64]


class ProofImage(NamedTuple):
    """One image of a proof."""

    pixels: Pixels
    """uint8 (S, S, 3)."""

    picture: int
    """Number of the picture that it is, or is a crop of."""

    label: int = UNLABELLED
    """Class index; `UNLABELLED` for a crop."""


class Batch(NamedTuple):
    """Images of a proof."""

    pixels: Pixels
    """uint8 (N, S, S, 3)."""

    pictures: Integers
    """int64 (N,) numbers of the pictures."""

    labels: Integers
    """int64 (N,) class indices, `UNLABELLED` for none."""


@dataclass(kw_only=True)
class ProofImages:
    """Images in batches; can be iterated once."""

    description: str
    """Origin of the images, for the record."""

    count: int
    """Number of images, those of unreadable pictures included."""

    labelled: bool
    """True if the pictures have class indices."""

    source: Iterator[ProofImage]
    """The images one by one."""

    unreadable: list[str] = field(default_factory=list)
    """Names of files that can't be decoded, added while iterating."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield batches of up to `size` images."""
        while part := list(islice(self.source, size)):
            yield Batch(
                np.stack([image.pixels for image in part]),
                np.array([image.picture for image in part]),
                np.array([image.label for image in part]),
            )


def proof_images(bundle: Bundle, data: Path | None) -> ProofImages:
    """Return the labelled images of `data` that the model was not trained on, or crops of the sample photographs.

    Raises:
        HalftoneError: the folder can't be used, or over 1 % of its images can't be read (raised while iterating).
    """
    if data is None:
        photos = sorted(PHOTOS.glob("*.jpg"))
        return ProofImages(
            description=f"{CROPS_PER_PHOTO} crops of each of {len(photos)} sample photographs",
            count=CROPS_PER_PHOTO * len(photos),
            labelled=False,
            source=(ProofImage(*crop) for crop in sample_crops(bundle.manifest.input)),
        )
    paths, seen = unseen_images(data, bundle)
    crops, unreadable = crops_each(len(paths)), list[str]()
    return ProofImages(
        description=_description(data, seen),
        count=len(paths) * (1 + crops),
        labelled=True,
        source=_labelled(paths, bundle.manifest.input, unreadable, crops),
        unreadable=unreadable,
    )


def shows(data: Path, bundle: Bundle, description: str, count: int) -> bool:
    """Return True if a proof with this description and number of images, unreadable ones included, was on `data`.

    Raises:
        HalftoneError: the folder can't be used.
    """
    paths, seen = unseen_images(data, bundle)
    return description == _description(data, seen) and count == len(paths) * (1 + crops_each(len(paths)))


def crops_each(pictures: int) -> int:
    """Return how many crops of each picture make up for few pictures."""
    return min(CROPS_PER_PHOTO, -(-MIN_IMAGES // pictures) - 1)


def _description(data: Path, seen: int) -> str:
    left_out = f" without {seen} that the model was trained on" if seen else ""
    return f"labelled pictures of the folder {printable(data.name)}{left_out}"


def sample_crops(
    spec: InputSpec,
    per_photo: int = CROPS_PER_PHOTO,
    *,
    first: int = 1,
    resize: Callable[[Pixels, InputSpec], Pixels] = fit,
) -> Iterator[tuple[Pixels, int]]:
    """Yield distinct square windows of the sample photographs, the same on every machine, and each one's photograph.

    Args:
        spec: the model's input.
        per_photo: number of windows of each photograph.
        first: number of the first window. A proof uses windows 1 to `CROPS_PER_PHOTO`; higher numbers give windows
            that no proof uses.
        resize: makes the input of a window, uint8 (H, W, 3).
    """
    yield from windows(sample_photos(), spec, per_photo, first=first, resize=resize)


def sample_photos() -> list[Pixels]:
    """Return the sample photographs, uint8 (H, W, 3) each."""
    return [decode(path.read_bytes()) for path in sorted(PHOTOS.glob("*.jpg"))]


def windows(
    photos: Sequence[Pixels],
    spec: InputSpec,
    per_photo: int,
    *,
    first: int = 1,
    resize: Callable[[Pixels, InputSpec], Pixels] = fit,
) -> Iterator[tuple[Pixels, int]]:
    """Yield windows of photographs as `sample_crops` does; those of its proof are 1 to `crops_each` of labelled ones.

    Neighbours are of different photographs, so that an answer that depends on its batch shows.
    """
    for step in range(first, first + per_photo):
        for place in range(len(photos)):
            # Another photograph each time at the same place of a batch, whose size may be a multiple of their number.
            number = (place + step) % len(photos)
            yield resize(_window(photos[number], step), spec), number


def _window(photo: Pixels, step: int) -> Pixels:
    """Return a square window; side (40 to 100 % of the short side) and place follow a Halton sequence.

    Its bases 2, 3 and 5 cover the range evenly without a random number generator.
    """
    height, width = photo.shape[:2]
    side = max(1, round(min(height, width) * (0.4 + 0.6 * _halton(step, 2))))
    top = round((height - side) * _halton(step, 3))
    left = round((width - side) * _halton(step, 5))
    return photo[top : top + side, left : left + side]


def _labelled(
    paths: list[tuple[Path, int]], spec: InputSpec, unreadable: list[str], crops: int
) -> Iterator[ProofImage]:
    """Yield every picture in an order that mixes the classes, then every picture's first crop, and so on."""
    readable: list[int] = []
    for picture in np.random.default_rng(0).permutation(len(paths)).tolist():
        path, label = paths[picture]
        try:
            image = load(path.read_bytes(), spec)
        except ImageError as error:
            unreadable.append(path.name)
            if len(unreadable) > max(1, MAX_UNREADABLE * len(paths)):
                raise HalftoneError(
                    f"{len(unreadable)} of the pictures can't be read, over {MAX_UNREADABLE:.0%} of {len(paths)}: "
                    f"repair or remove {', '.join(sorted(unreadable)[:5])} ({error})"
                ) from None
        else:
            readable.append(picture)
            yield ProofImage(image, picture, label)
    for step in range(1, crops + 1):
        for picture in readable:
            yield ProofImage(fit(_window(decode(paths[picture][0].read_bytes()), step), spec), picture)


def _halton(index: int, base: int) -> float:
    """Return the radical inverse of `index` (Halton 1960), in (0, 1)."""
    value, fraction = 0.0, 1.0
    while index:
        fraction /= base
        index, digit = divmod(index, base)
        value += digit * fraction
    return value
