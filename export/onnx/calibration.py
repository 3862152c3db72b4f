"""Calibration images: from the training split, never among the images of a parity proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from export.parity.images import CROPS_PER_PHOTO, PHOTOS, sample_crops
from models.common.errors import HalftoneError
from models.dataset import folder_parts, held_out_part, is_picture
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import load
from models.spec import InputSpec

TRAIN = "train"
MIN_PICTURES = 16


@dataclass(frozen=True, kw_only=True)
class CalibrationPictures:
    """Preprocessed images to measure ranges on."""

    description: str
    """Origin of the images, for the record."""

    pixels: npt.NDArray[np.uint8]
    """uint8 RGB (N, S, S, 3)."""


def calibration_pictures(
    spec: InputSpec, data: Path | None, calibrate_on: Path | None, *, count: int
) -> CalibrationPictures:
    """Return up to `count` images, evenly spread over the folder or the sample photographs.

    Args:
        spec: the model's input.
        data: folder of the proof; its sub-folder `train` is used. None for windows of the sample photographs that no
            proof uses.
        calibrate_on: folder to use instead.
        count: number of images.

    Raises:
        HalftoneError: the folder is missing, shares images with the proof, or too few of its images can be read.
    """
    folder = _folder(data, calibrate_on)
    if folder is None:
        photos = len(list(PHOTOS.glob("*.jpg")))
        each = -(-count // photos)
        crops = [pixels for pixels, _ in sample_crops(spec, each, first=CROPS_PER_PHOTO + 1)]
        return CalibrationPictures(
            description=f"{each} crops of each of {photos} sample photographs, other windows than a proof's",
            pixels=np.stack(crops),
        )
    pixels = list(islice(_readable(_spread(folder, count), spec), count))
    if len(pixels) < MIN_PICTURES:
        raise HalftoneError(
            f"{folder} holds only {len(pixels)} readable JPEG, PNG or WebP pictures, and calibration needs at least "
            f"{MIN_PICTURES}: name a folder with more of them with --calibrate-on DIR"
        )
    return CalibrationPictures(
        description=f"{len(pixels)} pictures of the folder {folder.name}, evenly spread", pixels=np.stack(pixels)
    )


def _folder(data: Path | None, calibrate_on: Path | None) -> Path | None:
    if data is None and calibrate_on is None:
        return None
    folder = calibrate_on or _training_part(Path(str(data)))
    if not folder.is_dir():
        raise HalftoneError(
            f"{folder}: no such folder, and calibration must not see the pictures that the proof is made on: "
            "name the training pictures with --calibrate-on DIR"
        )
    if data is not None:
        held_out = held_out_part(data).resolve()
        ours = folder.resolve()
        # DATA/train lies in DATA, yet apart from DATA/val.
        if held_out == ours or ours in held_out.parents or held_out in ours.parents:
            raise HalftoneError(
                f"{folder} and {held_out} share pictures, and calibration must not see those that the proof is made "
                "on: name a folder apart from them with --calibrate-on DIR"
            )
    return folder


def _training_part(data: Path) -> Path:
    return data / folder_parts(data).get("train", TRAIN)


def _spread(folder: Path, count: int) -> list[Path]:
    """Return `count` files at even distances in the order of their paths, so that each class gets its share."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and is_picture(path)]
    return [files[index * len(files) // count] for index in range(count)] if len(files) > count else files


def _readable(files: list[Path], spec: InputSpec) -> Iterator[Pixels]:
    for path in files:
        try:
            yield load(path.read_bytes(), spec)
        except ImageError:
            # Training counts and reports broken images; here the next image will do.
            continue
