"""One resampling, two engines: Pillow, the reference, and a SIMD one that takes a quarter of the time.

Both convolve with the same antialiased filters, first horizontally and then vertically, with 8 bits in between. The
SIMD engine (package `cykooz-resizer`, optional) rounds its coefficients to 16 bits where Pillow has 22. Over the 320
proof crops of `export.parity.images`, one sample in four hundred differs by one grey level and one in two million by two; the
default network names the same class for all of them (mean KL divergence 7e-6). `tests/models/preprocess/test_fast_libraries.py` holds
the engines to the pixels.
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
Span = tuple[float, float]

_FILTERS = {"bicubic": (Image.Resampling.BICUBIC, "catmull_rom"), "bilinear": (Image.Resampling.BILINEAR, "bilinear")}
# Half the filter's width, in pixels of the coarser of the two grids.
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}
# The SIMD engine copies its input: in strips of this many pixels a huge picture isn't held twice.
_STRIP_PIXELS = 2**20


def optional(module: str) -> Any:
    """The module, or None where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


_simd = optional("cykooz_resizer")


def resample(picture: Image.Image | Pixels, size: int, box: Box, filter_: Interpolation, *, plain: bool) -> Pixels:
    """Resample a part of a picture to a square.

    Args:
        picture: RGB, as Pillow's image or uint8 of shape (H, W, 3).
        size: side of the result in pixels.
        box: left, top, right and bottom of the part, in pixels of the picture.
        filter_: antialiased; Pillow's bicubic (a = -0.5) or bilinear.
        plain: Pillow even where the SIMD engine is installed.

    Returns:
        uint8 of shape (size, size, 3).
    """
    # The order of the two passes shows where they clip overshoots (up to 7 grey levels), and in one call Pillow and the
    # SIMD engine each choose it by rules of their own. So there are two calls, each leaving one direction as it is.
    left, top, right, bottom = box
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    x0, x1 = _reach(left, right, width, size, filter_)
    y0, y1 = _reach(top, bottom, height, size, filter_)
    down = (top - y0, bottom - y0)
    if plain or _simd is None:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        # Pillow holds the box in single precision: measured from the crop's edge it would be another box.
        return _with_pillow(image.crop((0, y0, width, y1)), size, (left, right), down, filter_)
    across = (left - x0, right - x0)
    return _with_simd(np.asarray(picture)[y0:y1, x0:x1], size, across, down, filter_)


def _with_pillow(image: Image.Image, size: int, across: Span, down: Span, filter_: Interpolation) -> Pixels:
    resampling = _FILTERS[filter_][0]
    narrow = image.resize((size, image.height), resampling, box=(across[0], 0, across[1], image.height))
    return np.asarray(narrow.resize((size, size), resampling, box=(0, down[0], size, down[1])))


def _with_simd(pixels: Pixels, size: int, across: Span, down: Span, filter_: Interpolation) -> Pixels:
    height, width = pixels.shape[:2]
    rows = max(1, _STRIP_PIXELS // width)
    narrow = []
    for start in range(0, height, rows):
        strip = pixels[start : start + rows]
        crop = (across[0], 0, across[1], len(strip))
        narrow.append(_convolve(strip.tobytes(), (width, len(strip)), crop, (size, len(strip)), filter_))
    result = _convolve(b"".join(narrow), (size, height), (0, down[0], size, down[1]), (size, size), filter_)
    return np.frombuffer(result, np.uint8).reshape(size, size, 3)


def _reach(low: float, high: float, length: int, size: int, filter_: Interpolation) -> tuple[int, int]:
    """First and last + 1 of the samples that the filter touches along one side, with a margin of one."""
    support = _SUPPORT[filter_] * max(1.0, (high - low) / size) + 1
    return max(0, math.floor(low - support)), min(length, math.ceil(high + support))


def _convolve(data: bytes, source: tuple[int, int], box: Box, result: tuple[int, int], filter_: Interpolation) -> bytes:
    """One call of the engine on packed RGB; `source` and `result` are widths and heights."""
    kind = _simd.PixelType.U8x3
    target = _simd.ImageData(*result, kind)
    left, top, right, bottom = box
    # Rounding may have carried the box out of the picture by the last bit of a float.
    width, height = min(right, source[0]) - left, min(bottom, source[1]) - top
    crop = _simd.CropBox(left, top, width, height)
    options = _simd.ResizeOptions(_algorithm(filter_), use_alpha=False, crop_box=crop)
    # A resizer keeps scratch memory and serves one thread at a time: a new one costs a microsecond.
    _simd.Resizer().resize(_simd.ImageData(*source, kind, data), target, options)
    return bytes(target.get_buffer())


@functools.cache
def _algorithm(filter_: Interpolation) -> Any:
    return _simd.ResizeAlg.convolution(getattr(_simd.FilterType, _FILTERS[filter_][1]))
