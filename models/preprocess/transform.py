"""Evaluation transform: decode an image, resize its short side with antialiasing and crop the centre.

Training's evaluation, export's parity and serving all call this module, so that a model sees the same pixels
everywhere. It needs Pillow and numpy, never torch. The result follows timm's evaluation transform. Mean and standard
deviation are part of the graph (`models.graph`).

With the optional packages `simplejpeg` (`models.preprocess.decode`) and `cykooz-resizer` (`models.preprocess.resample`)
the transform takes 40 % of the time. `plain=True` uses only Pillow. `python -m export.preprocess_benchmark` measures
both.
"""

from __future__ import annotations

from PIL import Image

from models.preprocess.decode import MAX_PIXELS, decode_upright
from models.preprocess.resample import Box, Pixels, resample
from models.spec import InputSpec

Fractions = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in 0..1 of its width and height."""


def fit(image: Pixels, spec: InputSpec, *, plain: bool = False) -> Pixels:
    """Resize the short side to `spec.resize_to` with antialiasing and crop the centre square.

    Only the part that the crop keeps is resampled. This takes a third of the time of resizing the whole image first,
    and gives the same pixels up to a rounding of one grey level, very rarely two.

    Args:
        image: uint8 RGB of shape (H, W, 3).
        spec: the model's input.
        plain: use only Pillow, even if `cykooz-resizer` is installed (`models.preprocess.resample`).

    Returns:
        uint8 RGB of shape (spec.size, spec.size, 3).
    """
    return _fit(image, spec, plain)


def load(data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS, plain: bool = False) -> Pixels:
    """Return `fit(decode(data), spec)` without intermediate copies; same arguments, result and errors."""
    return _fit(decode_upright(data, max_pixels=max_pixels, plain=plain), spec, plain)


def load_with_box(data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, Fractions]:
    """Return `load(data, spec)`, and the part of the upright image that it shows.

    The part is left, top, right and bottom, as fractions of the width and the height in 0..1. Errors as `decode`.
    """
    picture = decode_upright(data, max_pixels=max_pixels, plain=False)
    width, height = _size(picture)
    left, top, right, bottom = _source_box(width, height, spec)
    box = left / width, top / height, right / width, bottom / height
    inside = tuple(min(1.0, max(0.0, edge)) for edge in box)
    return _fit(picture, spec, plain=False), (inside[0], inside[1], inside[2], inside[3])


def _size(picture: Image.Image | Pixels) -> tuple[int, int]:
    """Return width and height in pixels."""
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    return width, height


def _fit(picture: Image.Image | Pixels, spec: InputSpec, plain: bool) -> Pixels:
    width, height = _size(picture)
    box = _source_box(width, height, spec)
    return resample(picture, spec.size, box, spec.interpolation, plain=plain)


def _source_box(width: int, height: int, spec: InputSpec) -> Box:
    """Return the square of the centre crop, in pixels of the image before resizing."""
    # Rounds as torchvision does: Resize truncates, CenterCrop rounds half to even.
    short = spec.resize_to
    if width <= height:
        resized_width, resized_height = short, int(short * height / width)
    else:
        resized_width, resized_height = int(short * width / height), short
    left, top = round((resized_width - spec.size) / 2), round((resized_height - spec.size) / 2)
    x, y = width / resized_width, height / resized_height
    return left * x, top * y, (left + spec.size) * x, (top + spec.size) * y
