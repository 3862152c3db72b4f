"""Calibration images: those of the training, never among the images of a parity proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.parity.images import CROPS_PER_PHOTO, PHOTOS, sample_crops
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.text import printable
from models.dataset import held_out_part, images, training_images
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import load
from models.spec import InputSpec

MIN_PICTURES = 16


@dataclass(frozen=True, kw_only=True)
class CalibrationPictures:
    """Preprocessed images to measure ranges on."""

    description: str
    """Origin of the images, for the record."""

    pixels: npt.NDArray[np.uint8]
    """uint8 RGB (N, S, S, 3)."""


def calibration_pictures(
    bundle: Bundle, data: Path | None, calibrate_on: Path | None, *, count: int
) -> CalibrationPictures:
    """Return up to `count` images, evenly spread over training pictures, or windows of the sample photographs.

    The sample photographs stand in for fewer than `MIN_PICTURES`; the proof tells whether they are good enough.

    Args:
        bundle: the model.
        data: folder of the proof, whose training pictures are used. None: the sample photographs.
        calibrate_on: folder to use instead.
        count: number of images.

    Raises:
        HalftoneError: `calibrate_on` is missing, shares images with the proof, or holds too few that can be read.
    """
    spec = bundle.manifest.input
    files, origin = list[Path](), ""
    if calibrate_on is not None:
        files, origin = images(_apart(calibrate_on, data)), f"pictures of the folder {printable(calibrate_on.name)}"
    elif data is not None:
        files, origin = training_images(data, bundle), f"training pictures of the folder {printable(data.name)}"
    pixels = list(islice(_readable(_spread(files, count), spec), count))
    if len(pixels) >= MIN_PICTURES:
        return CalibrationPictures(description=f"{len(pixels)} {origin}, evenly spread", pixels=np.stack(pixels))
    if calibrate_on is not None:
        raise HalftoneError(
            f"--calibrate-on {calibrate_on} holds only {len(pixels)} readable JPEG, PNG or WebP pictures, and "
            f"calibration needs at least {MIN_PICTURES}: name a folder with more of them"
        )
    return _sample(spec, count)


def _sample(spec: InputSpec, count: int) -> CalibrationPictures:
    photos = len(list(PHOTOS.glob("*.jpg")))
    each = -(-count // photos)
    crops = [pixels for pixels, _ in sample_crops(spec, each, first=CROPS_PER_PHOTO + 1)]
    return CalibrationPictures(
        description=f"{each} crops of each of {photos} sample photographs, other windows than a proof's",
        pixels=np.stack(crops),
    )


def _apart(folder: Path, data: Path | None) -> Path:
    """Return the folder, unless it isn't there or shares pictures with the proof."""
    if not folder.is_dir():
        raise HalftoneError(f"--calibrate-on {folder}: no such folder; name a folder of training pictures")
    if data is not None:
        held_out, ours = held_out_part(data).resolve(), folder.resolve()
        if held_out == ours or ours in held_out.parents or held_out in ours.parents:
            raise HalftoneError(
                f"--calibrate-on {folder} shares pictures with {held_out}, on which the proof is made: name a folder "
                "apart from it, or omit the flag"
            )
    return folder


def _spread(files: list[Path], count: int) -> list[Path]:
    """Return `count` files at even distances, so that each class gets its share."""
    return [files[index * len(files) // count] for index in range(count)] if len(files) > count else files


def _readable(files: list[Path], spec: InputSpec) -> Iterator[Pixels]:
    for path in files:
        try:
            yield load(path.read_bytes(), spec)
        except ImageError:
            # Training counts and reports broken images; here the next image will do.
            continue
