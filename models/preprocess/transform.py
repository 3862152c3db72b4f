"""Bytes to pixels, once: the only place that decodes, orients, resizes and crops.

Training's evaluation, export's parity and serving all call this module, so that a model sees the same pixels
wherever it runs. It needs Pillow and numpy, never torch. The result follows timm's evaluation transform
(resize the short side with antialiasing, centre crop); mean and standard deviation live inside the graph.

Where the optional packages `simplejpeg` and `cykooz-resizer` are installed, ordinary JPEGs are decoded by the first
(the same pixels) and all pictures are resized by the second (`models.preprocess.resample`), in 40 % of the time; `plain=True` is
the path through Pillow alone. `python -m export.preprocess_benchmark` measures both.
"""

from __future__ import annotations

from PIL import Image

from models.preprocess.decode import MAX_PIXELS, _open_upright
from models.preprocess.resample import Box, Pixels, resample
from models.spec import InputSpec


def fit(image: Pixels, spec: InputSpec, *, plain: bool = False) -> Pixels:
    """Resize the short side to `spec.resize_to` with antialiasing and cut the centre square.

    Only the part that the crop keeps is resampled; that gives the pixels of resizing the whole picture first
    (up to a rounding of one grey level, very seldom two) in a third of the time.

    Args:
        image: uint8 RGB of shape (H, W, 3).
        spec: the model's input.
        plain: Pillow alone, even where `cykooz-resizer` is installed; see `models.preprocess.resample` for the difference.

    Returns:
        uint8 RGB of shape (spec.size, spec.size, 3).
    """
    return _fit(image, spec, plain)


def load(data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS, plain: bool = False) -> Pixels:
    """`fit(decode(data), spec)` without the copies in between; same arguments, result and errors."""
    return _fit(_open_upright(data, max_pixels, plain), spec, plain)


def _fit(picture: Image.Image | Pixels, spec: InputSpec, plain: bool) -> Pixels:
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    box = _source_box(width, height, spec)
    return resample(picture, spec.size, box, spec.interpolation, plain=plain)


def _source_box(width: int, height: int, spec: InputSpec) -> Box:
    """The centre crop's square, measured in the pixels of the picture before resizing."""
    # The rounding is that of torchvision's Resize (truncation) and CenterCrop (half to even).
    short = spec.resize_to
    if width <= height:
        resized_width, resized_height = short, int(short * height / width)
    else:
        resized_width, resized_height = int(short * width / height), short
    left, top = round((resized_width - spec.size) / 2), round((resized_height - spec.size) / 2)
    x, y = width / resized_width, height / resized_height
    return left * x, top * y, (left + spec.size) * x, (top + spec.size) * y
