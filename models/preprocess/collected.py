"""Collected pictures: JPEG files that hold the answer of the server that collected them, as their comment.

One file holds both, so that no crash can part them, and deleting a picture deletes all that is kept of it. The picture
is encoded again: what a camera writes beside the pixels, such as its position, is not in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, JpegImagePlugin

from models.common.errors import HalftoneError
from models.common.strict_json import json_object
from models.preprocess.resample import Pixels

LONGEST = 1024
"""Longest side of a collected picture in pixels; larger ones are reduced to it."""

QUALITY = 95
"""Of the JPEG; colours have the full resolution."""

NAMED = 5
"""Classes of the answer that are kept."""

Reason = Literal["unfamiliar", "unconfident", "disagree", "random"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a picture may be collected; of several reasons, the first counts."""

_FILE = re.compile(r"[0-9a-f]{32}\.jpg")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a server answered for a picture."""

    model: str
    version: str
    variant: str

    time: str
    """UTC, such as `2026-11-24T12:00:00+00:00`."""

    reason: Reason

    predictions: tuple[tuple[str, float], ...]
    """The most probable classes with their probabilities, at most `NAMED`, the best first."""

    confident: bool | None = None
    """None if the model promises nothing of it; so for `unfamiliar`."""

    unfamiliar: bool | None = None

    def __post_init__(self) -> None:
        if not self.predictions or self.reason not in REASONS:
            raise ValueError("no predictions, or an unknown reason")


def reduced(pixels: Pixels) -> Pixels:
    """Return the picture with its longest side at most `LONGEST`; uint8 RGB (H, W, 3)."""
    if max(pixels.shape[:2]) <= LONGEST:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST))
    return np.asarray(image)


def file_name(pixels: Pixels) -> str:
    """Return the name of a picture's file: a hash of its size and pixels, so that the same picture has the same."""
    content = hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes())
    return f"{content.hexdigest()[:32]}.jpg"


def encode(pixels: Pixels, answer: Answer) -> bytes:
    """Return the JPEG file of a picture and its answer.

    Args:
        pixels: uint8 RGB (H, W, 3).
        answer: in the file's comment, as JSON.
    """
    comment = json.dumps({key: value for key, value in asdict(answer).items() if value is not None}, ensure_ascii=False)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0, comment=comment.encode())
    return file.getvalue()


def read_answer(path: Path) -> Answer:
    """Read the answer that a collected picture holds; decodes no pixels.

    Raises:
        HalftoneError: the file is no collected picture.
    """
    try:
        with JpegImagePlugin.JpegImageFile(path) as image:
            values: dict[str, Any] = json_object(image.info["comment"])
        pairs = tuple((str(label), float(probability)) for label, probability in values["predictions"])
        return Answer(**values | {"predictions": pairs})
    except (OSError, SyntaxError, KeyError, TypeError, ValueError) as error:
        raise HalftoneError(f"{path} is no collected picture ({error}): remove it from the folder") from None


def is_collected(name: str) -> bool:
    """Return True if a file of this name is a collected picture's: other files in the folder are left alone."""
    return _FILE.fullmatch(name) is not None


def collected_pictures(folder: Path) -> list[Path]:
    """Return the files of the collected pictures in a folder, in the order of their names.

    Raises:
        HalftoneError: there is no such folder.
    """
    if not folder.is_dir():
        raise HalftoneError(f"{folder}: no such folder; name the one that HALFTONE_COLLECT named when serving")
    return sorted(path for path in folder.iterdir() if is_collected(path.name))
