"""Real pictures to prove a variant on: a labelled folder, or crops of the sample photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError
from models.dataset import held_out_images
from models.preprocess.decode import ImageError, decode
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit, load
from models.spec import InputSpec

PHOTOS = Path(str(files("export") / "photos"))
CROPS_PER_PHOTO = 40
MAX_UNREADABLE = 0.01

Batch = tuple[Pixels, npt.NDArray[np.int64] | None]


@dataclass(kw_only=True)
class ProofImages:
    """Pictures in batches; iterate it once."""

    description: str
    """What they are, for the record."""

    count: int
    """How many there are."""

    labelled: bool
    """Whether the batches carry class indices."""

    source: Iterator[tuple[Pixels, int | None]]
    """One picture after the other: uint8 (S, S, 3), and its class."""

    unreadable: list[str] = field(default_factory=list)
    """Names of pictures that could not be decoded, filled while iterating."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of up to `size` pictures: uint8 (N, S, S, 3), and int64 (N,) classes or None."""
        pixels: list[Pixels] = []
        classes: list[int] = []
        for picture, label in self.source:
            pixels.append(picture)
            if label is not None:
                classes.append(label)
            if len(pixels) == size:
                yield _stack(pixels, classes)
                pixels, classes = [], []
        if pixels:
            yield _stack(pixels, classes)


def proof_images(manifest: Manifest, data: Path | None) -> ProofImages:
    """The labelled pictures of `data`, or else crops of the sample photographs.

    Raises:
        HalftoneError: the folder can't be used, or over 1 % of its pictures can't be read (raised while iterating).
    """
    if data is None:
        photos = sorted(PHOTOS.glob("*.jpg"))
        return ProofImages(
            description=f"{CROPS_PER_PHOTO} crops of each of {len(photos)} sample photographs",
            count=CROPS_PER_PHOTO * len(photos),
            labelled=False,
            source=sample_crops(manifest.input),
        )
    files = held_out_images(data, manifest)
    unreadable: list[str] = []
    return ProofImages(
        description=f"labelled pictures of the folder {data.name}",
        count=len(files),
        labelled=True,
        source=_labelled(files, manifest.input, unreadable),
        unreadable=unreadable,
    )


def sample_crops(spec: InputSpec, per_photo: int = CROPS_PER_PHOTO, *, first: int = 1) -> Iterator[tuple[Pixels, None]]:
    """Distinct square windows of the sample photographs, the same on every machine.

    A proof takes the windows from 1 on; `first` beyond `CROPS_PER_PHOTO` gives windows that no proof is made on.

    Side (40 to 100 % of the short side) and position follow a Halton sequence (bases 2, 3, 5), which covers the
    range evenly without a random number generator.
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
    files: list[tuple[Path, int]], spec: InputSpec, unreadable: list[str]
) -> Iterator[tuple[Pixels, int | None]]:
    for path, label in files:
        try:
            yield load(path.read_bytes(), spec), label
        except ImageError as error:
            unreadable.append(path.name)
            if len(unreadable) > max(1, MAX_UNREADABLE * len(files)):
                raise HalftoneError(
                    f"{len(unreadable)} of the pictures can't be read, over {MAX_UNREADABLE:.0%} of {len(files)}: "
                    f"repair or remove {', '.join(unreadable[:5])} ({error})"
                ) from None


def _stack(pixels: list[Pixels], classes: list[int]) -> Batch:
    return np.stack(pixels), np.array(classes, dtype=np.int64) if classes else None


def _halton(index: int, base: int) -> float:
    """The radical inverse of `index` (Halton 1960), in (0, 1)."""
    value, fraction = 0.0, 1.0
    while index:
        fraction /= base
        index, digit = divmod(index, base)
        value += digit * fraction
    return value
