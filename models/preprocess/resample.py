"""Resample an image with Pillow, the reference, or with a SIMD library that takes a quarter of the time.

Both convolve with the same antialiased filters, first horizontally and then vertically, with 8 bits in between. The
SIMD library (optional package `cykooz-resizer`) rounds its coefficients to 16 bits, and Pillow to 22. In the 320 proof
crops of `export.parity.images`, one sample in four hundred differs by one grey level and one in two million by two. The
default network predicts the same class for all of them (mean KL divergence 7e-6).
`tests/models/preprocess/test_fast_libraries.py` checks the difference.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.spec import Interpolation

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
IntBox = tuple[int, int, int, int]
Span = tuple[float, float]

_FILTERS = {"bicubic": (Image.Resampling.BICUBIC, "catmull_rom"), "bilinear": (Image.Resampling.BILINEAR, "bilinear")}
# Half the filter's width, in pixels of the coarser of the two grids.
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}
# The SIMD library copies its input: in strips of this many pixels, a huge image is not in memory twice.
_STRIP_PIXELS = 2**20


def optional(module: str) -> Any:
    """Import a module; return None if its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


_simd = optional("cykooz_resizer")


def resample(picture: Image.Image | Pixels, size: int, box: Box, filter_: Interpolation, *, plain: bool) -> Pixels:
    """Resample a rectangle of an image to a square.

    Args:
        picture: RGB, as a Pillow image or uint8 of shape (H, W, 3).
        size: side of the result in pixels.
        box: left, top, right and bottom of the rectangle, in pixels of the image.
        filter_: antialiased; Pillow's bicubic (a = -0.5) or bilinear.
        plain: use Pillow even if the SIMD library is installed.

    Returns:
        uint8 of shape (size, size, 3).
    """
    # The order of the two passes matters if they clip overshoots (up to 7 grey levels), and within one call Pillow and
    # the SIMD library choose the order differently. So there are two calls, each of which resamples one direction.
    left, top, right, bottom = box
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    x0, x1 = _touched(left, right, width, size, filter_)
    y0, y1 = _touched(top, bottom, height, size, filter_)
    down = (top - y0, bottom - y0)
    if plain or _simd is None:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        # Pillow stores the box in single precision: relative to the crop's left edge, the box would change.
        return _with_pillow(image.crop((0, y0, width, y1)), size, (left, right), down, filter_)
    across = (left - x0, right - x0)
    return _with_simd(picture, (x0, y0, x1, y1), size, across, down, filter_)


def resampling_weights(length: int, size: int, span: Span, filter_: Interpolation) -> npt.NDArray[np.float32]:
    """Return the weights with which Pillow resamples a part of a line of samples.

    Args:
        length: number of samples in the line.
        size: number of samples in the result.
        span: the part, from and to, in samples; beyond its ends, the line goes on with its outermost samples.
        filter_: as for `resample`.

    Returns:
        float32 (size, length); a product with the line resamples it, without the rounding to 8 bits.
    """
    beyond = math.ceil(max(0.0, -span[0], span[1] - length))
    extended = length + 2 * beyond
    # Pillow's own filter, not another implementation of it: each unit vector gives a column.
    lines = Image.fromarray(np.eye(extended, dtype=np.float32))
    box = (span[0] + beyond, 0, min(span[1] + beyond, extended), extended)
    columns = np.asarray(lines.resize((size, extended), _FILTERS[filter_][0], box=box))
    nearest = np.clip(np.arange(extended) - beyond, 0, length - 1)
    weights = np.zeros((size, length), np.float32)
    np.add.at(weights.T, nearest, columns)
    return weights


def _with_pillow(image: Image.Image, size: int, across: Span, down: Span, filter_: Interpolation) -> Pixels:
    resampling = _FILTERS[filter_][0]
    narrow = image.resize((size, image.height), resampling, box=(across[0], 0, across[1], image.height))
    return np.asarray(narrow.resize((size, size), resampling, box=(0, down[0], size, down[1])))


def _with_simd(
    picture: Image.Image | Pixels, part: IntBox, size: int, across: Span, down: Span, filter_: Interpolation
) -> Pixels:
    left, top, right, bottom = part
    width, height = right - left, bottom - top
    rows = max(1, _STRIP_PIXELS // width)
    narrow = []
    for start in range(top, bottom, rows):
        end = min(start + rows, bottom)
        crop = (across[0], 0, across[1], end - start)
        strip = _packed(picture, (left, start, right, end))
        narrow.append(_convolve(strip, (width, end - start), crop, (size, end - start), filter_))
    result = _convolve(b"".join(narrow), (size, height), (0, down[0], size, down[1]), (size, size), filter_)
    return np.frombuffer(result, np.uint8).reshape(size, size, 3)


def _packed(picture: Image.Image | Pixels, part: IntBox) -> bytes:
    """Return the samples of a part of an image, three bytes a pixel."""
    if isinstance(picture, Image.Image):
        return picture.crop(part).tobytes()
    left, top, right, bottom = part
    return picture[top:bottom, left:right].tobytes()


def _touched(low: float, high: float, length: int, size: int, filter_: Interpolation) -> tuple[int, int]:
    """Return the first and last + 1 of the samples that the filter touches in one direction, plus one on each side."""
    support = _SUPPORT[filter_] * max(1.0, (high - low) / size) + 1
    return max(0, math.floor(low - support)), min(length, math.ceil(high + support))


def _convolve(data: bytes, source: tuple[int, int], box: Box, result: tuple[int, int], filter_: Interpolation) -> bytes:
    """Call the SIMD library on packed RGB; `source` and `result` are (width, height)."""
    kind = _simd.PixelType.U8x3
    target = _simd.ImageData(*result, kind)
    left, top, right, bottom = box
    # Rounding may have moved the box out of the image by the last bit of a float.
    width, height = min(right, source[0]) - left, min(bottom, source[1]) - top
    crop = _simd.CropBox(left, top, width, height)
    options = _simd.ResizeOptions(_algorithm(filter_), use_alpha=False, crop_box=crop)
    # A resizer keeps scratch memory and is not thread-safe; creating one takes a microsecond.
    _simd.Resizer().resize(_simd.ImageData(*source, kind, data), target, options)
    return bytes(target.get_buffer())


@functools.cache
def _algorithm(filter_: Interpolation) -> Any:
    return _simd.ResizeAlg.convolution(getattr(_simd.FilterType, _FILTERS[filter_][1]))
