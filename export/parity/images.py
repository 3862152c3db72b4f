"""Images for a parity proof: a labelled folder, or crops of the sample photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError
from models.common.text import printable
from models.dataset import held_out_images
from models.preprocess.decode import decode
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit, load
from models.spec import InputSpec

PHOTOS = Path(str(files("export") / "photos"))
CROPS_PER_PHOTO = 40
MAX_UNREADABLE = 0.01

Batch = tuple[Pixels, npt.NDArray[np.int64] | None]


@dataclass(kw_only=True)
class ProofImages:
    """Images in batches; can be iterated once."""

    description: str
    """Origin of the images, for the record."""

    count: int
    """Number of images, unreadable ones included."""

    labelled: bool
    """True if the batches carry class indices."""

    source: Iterator[tuple[Pixels, int | None]]
    """The images one by one: uint8 (S, S, 3), and the class index or None."""

    unreadable: list[str] = field(default_factory=list)
    """Names of files that can't be decoded, added while iterating."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield batches of up to `size` images: uint8 (N, S, S, 3), and int64 (N,) classes or None."""
        pixels: list[Pixels] = []
        classes: list[int] = []
        for image, label in self.source:
            pixels.append(image)
            if label is not None:
                classes.append(label)
            if len(pixels) == size:
                yield _stack(pixels, classes)
                pixels, classes = [], []
        if pixels:
            yield _stack(pixels, classes)


def proof_images(manifest: Manifest, data: Path | None) -> ProofImages:
    """Return the labelled images of `data`, or crops of the sample photographs if it is None.

    Raises:
        HalftoneError: the folder can't be used, or over 1 % of its images can't be read (raised while iterating).
    """
    if data is None:
        photos = sorted(PHOTOS.glob("*.jpg"))
        return ProofImages(
            description=f"{CROPS_PER_PHOTO} crops of each of {len(photos)} sample photographs",
            count=CROPS_PER_PHOTO * len(photos),
            labelled=False,
            source=sample_crops(manifest.input),
        )
    paths = held_out_images(data, manifest)
    unreadable: list[str] = []
    return ProofImages(
        description=_description(data),
        count=len(paths),
        labelled=True,
        source=_labelled(paths, manifest.input, unreadable),
        unreadable=unreadable,
    )


def shows(data: Path, manifest: Manifest, description: str, count: int) -> bool:
    """Return True if a proof with this description and number of images, unreadable ones included, was on `data`.

    Raises:
        HalftoneError: the folder can't be used.
    """
    return description == _description(data) and count == len(held_out_images(data, manifest))


def _description(data: Path) -> str:
    return f"labelled pictures of the folder {printable(data.name)}"


def sample_crops(spec: InputSpec, per_photo: int = CROPS_PER_PHOTO, *, first: int = 1) -> Iterator[tuple[Pixels, None]]:
    """Yield distinct square windows of the sample photographs, the same on every machine.

    Side (40 to 100 % of the short side) and position follow a Halton sequence (bases 2, 3, 5), which covers the
    range evenly without a random number generator.

    Args:
        spec: the model's input.
        per_photo: number of windows of each photograph.
        first: number of the first window. A proof uses windows 1 to `CROPS_PER_PHOTO`; higher numbers give windows
            that no proof uses.
    """
    for path in sorted(PHOTOS.glob("*.jpg")):
        photo = decode(path.read_bytes())
        height, width = photo.shape[:2]
        for step in range(first, first + per_photo):
            side = round(min(height, width) * (0.4 + 0.6 * _halton(step, 2)))
            top = round((height - side) * _halton(step, 3))
            left = round((width - side) * _halton(step, 5))
            yield fit(photo[top : top + side, left : left + side], spec), None


def _labelled(
    paths: list[tuple[Path, int]], spec: InputSpec, unreadable: list[str]
) -> Iterator[tuple[Pixels, int | None]]:
    for path, label in paths:
        try:
            yield load(path.read_bytes(), spec), label
        except ImageError as error:
            unreadable.append(path.name)
            if len(unreadable) > max(1, MAX_UNREADABLE * len(paths)):
                raise HalftoneError(
                    f"{len(unreadable)} of the pictures can't be read, over {MAX_UNREADABLE:.0%} of {len(paths)}: "
                    f"repair or remove {', '.join(unreadable[:5])} ({error})"
                ) from None


def _stack(pixels: list[Pixels], classes: list[int]) -> Batch:
    return np.stack(pixels), np.array(classes, dtype=np.int64) if classes else None


def _halton(index: int, base: int) -> float:
    """Return the radical inverse of `index` (Halton 1960), in (0, 1)."""
    value, fraction = 0.0, 1.0
    while index:
        fraction /= base
        index, digit = divmod(index, base)
        value += digit * fraction
    return value
