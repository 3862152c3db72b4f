"""Render an explanation as a PNG: the network's input, the heat map over it, and the best classes as bars."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from models.preprocess.resample import Pixels

SIDE, TILE = 448, 224
MARGIN = 16
LINE = 28
OPACITY = 0.6

_BAR, _INK, _PAPER = (214, 220, 228), (32, 36, 42), (255, 255, 255)

# Five colours from dark to bright (matplotlib's "inferno"): brightness alone tells hot from cold.
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.float32)


def render(
    picture: Pixels, heat: npt.NDArray[np.float32], predictions: Sequence[tuple[str, float]], title: str
) -> bytes:
    """Return a PNG of the image, the image under its heat map, and the predictions.

    Args:
        picture: uint8 RGB (S, S, 3), as the network saw it.
        heat: float32 (S, S) in 0..1.
        predictions: label and probability in 0..1, best first.
        title: one line above the predictions.

    Returns:
        The PNG file's bytes.
    """
    width = 2 * SIDE + 3 * MARGIN
    sheet = Image.new("RGB", (width, SIDE + LINE * (len(predictions) + 1) + 3 * MARGIN), _PAPER)
    for column, pixels in enumerate((picture, overlay(picture, heat))):
        enlarged = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        sheet.paste(enlarged, (MARGIN + column * (SIDE + MARGIN), MARGIN))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE * 0.6)
    top = SIDE + 2 * MARGIN
    draw.text((MARGIN, top), title, fill=_INK, font=font)
    for label, probability in predictions:
        top += LINE
        full = width - 2 * MARGIN
        draw.rectangle((MARGIN, top, MARGIN + full * probability, top + LINE - 4), fill=_BAR)
        draw.text((MARGIN + 6, top + 2), f"{label}  {probability:.1%}", fill=_INK, font=font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def render_heads(picture: Pixels, maps: npt.NDArray[np.float32], title: str) -> bytes:
    """Return a PNG of the image and of the image under the map of every head, as a sheet with numbers.

    Args:
        picture: uint8 RGB (S, S, 3), as the network saw it.
        maps: float32 (heads, S, S) in 0..1.
        title: one line above.

    Returns:
        The PNG file's bytes.
    """
    tiles = [("input", picture), *((f"head {number}", overlay(picture, heat)) for number, heat in enumerate(maps, 1))]
    across = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / across)
    size = (MARGIN + across * (TILE + MARGIN), LINE + MARGIN + rows * (TILE + LINE))
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE * 0.6)
    draw.text((MARGIN, MARGIN / 2), title, fill=_INK, font=font)
    for place, (caption, pixels) in enumerate(tiles):
        left = MARGIN + place % across * (TILE + MARGIN)
        top = LINE + MARGIN + place // across * (TILE + LINE)
        sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC), (left, top))
        draw.text((left, top + TILE), caption, fill=_INK, font=font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def overlay(picture: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """Return the image blended with the colours of its heat map.

    Args:
        picture: uint8 RGB (S, S, 3).
        heat: float32 (S, S) in 0..1.

    Returns:
        uint8 RGB (S, S, 3).
    """
    steps = np.linspace(0, 1, len(_HEAT))
    colours = np.stack([np.interp(heat, steps, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    return np.asarray((1 - OPACITY) * picture + OPACITY * colours).round().astype(np.uint8)
