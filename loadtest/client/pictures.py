"""Prepare the photos that every server gets: real ones, at the size of a web thumbnail or of a phone's camera."""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from loadtest.reporting.cli import CompareError

SIZE = (500, 375)
BYTES = 47_000
"""Of a photo of `SIZE`; larger ones have as many for each pixel: 3 MB at 12 megapixels."""

MOST_BYTES = 1_000_000_000
"""Of all photos together, which the load generator holds in memory."""

VIEWS = 3
"""Views of each photo for measurements that don't compare classes with those of a reference."""

_MOST_CUT = 0.3
_STEPS = (0.8191725, 0.6710436, 0.5497005)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def prepare(source: Path, target: Path, views: int, megapixels: float | None = None) -> None:
    """Write 4:3 views of every photo of `source` into `target`, as JPEGs of 500x375 pixels and about 47 KB.

    The first view is the whole photo. The others are crops of 70 to 100 % of its sides, every second one mirrored. The
    same photos give the same views.

    Args:
        source: folder of photos.
        target: folder for the views.
        views: number of views of each photo.
        megapixels: size of each view instead of 500x375, with as many bytes for each pixel.

    Raises:
        CompareError: there is no photo, or the views would have more than `MOST_BYTES`.
    """
    scale = math.sqrt(megapixels * 1e6 / (SIZE[0] * SIZE[1])) if megapixels else 1.0
    size, weight = (round(scale * SIZE[0]), round(scale * SIZE[1])), round(scale**2 * BYTES)
    photos = sorted(path for path in source.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not photos:
        raise CompareError(
            f"there is no JPEG, PNG or WebP picture in {source} itself: name another folder with --images"
        )
    if (total := weight * views * len(photos)) > MOST_BYTES:
        raise CompareError(
            f"{views} views of {len(photos)} photos with {weight / 1e6:.1f} MB each are {total / 1e9:.1f} GB in "
            f"memory: give --views {max(1, MOST_BYTES // (weight * len(photos)))}"
        )
    target.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        for number in range(views):
            (target / f"{photo.stem}-{number:02}.jpg").write_bytes(_jpeg(_view(upright, number, size), weight))


def prepared(source: Path, views: int, megapixels: float | None = None) -> dict[str, bytes]:
    """Return the views that `prepare` writes, by file name; arguments and errors as there."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(source, Path(folder), views, megapixels)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _view(photo: Image.Image, number: int, pixels: tuple[int, int]) -> Image.Image:
    """Return the crop of this number in this size.

    Sizes and places are a Kronecker sequence: evenly spread without repetition.
    """
    size, left, top = (number * step % 1 for step in _STEPS)
    scale = (1 - _MOST_CUT * size) * min(photo.width / SIZE[0], photo.height / SIZE[1])
    width, height = scale * SIZE[0], scale * SIZE[1]
    x, y = (left, top) if number else (0.5, 0.5)
    box = (x * (photo.width - width), y * (photo.height - height))
    view = photo.resize(pixels, Image.Resampling.LANCZOS, box=(*box, box[0] + width, box[1] + height))
    return ImageOps.mirror(view) if number % 2 else view


def _jpeg(image: Image.Image, weight: int) -> bytes:
    """Encode at the quality whose number of bytes comes nearest to the given one."""
    low, high, best = 20, 98, b""
    while low <= high:
        quality = (low + high) // 2
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        if not best or abs(len(data) - weight) < abs(len(best) - weight):
            best = data
        low, high = (quality + 1, high) if len(data) < weight else (low, quality - 1)
    return best
