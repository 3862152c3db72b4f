"""The photos that every server gets: real ones, at the size of a web thumbnail."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from loadtest.comparison.errors import CompareError

SIZE = (500, 375)
BYTES = 47_000
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def prepare(source: Path, target: Path) -> None:
    """Write three 4:3 views of every photo of `source` into `target`, as JPEGs of 500x375 pixels and about 47 KB.

    Raises:
        CompareError: there is no photo.
    """
    photos = sorted(path for path in source.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not photos:
        raise CompareError(f"there is no JPEG, PNG or WebP picture in {source}: name another folder with --images")
    target.mkdir(parents=True, exist_ok=True)
    for photo in photos:
        with Image.open(photo) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        for name, view in _views(upright).items():
            (target / f"{photo.stem}-{name}.jpg").write_bytes(_jpeg(view))


def prepared(source: Path) -> dict[str, bytes]:
    """The same views in memory, by file name.

    Raises:
        CompareError: there is no photo.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepare(source, Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _views(photo: Image.Image) -> dict[str, Image.Image]:
    whole = ImageOps.fit(photo, SIZE, Image.Resampling.LANCZOS)
    near = ImageOps.fit(photo, SIZE, Image.Resampling.LANCZOS, bleed=0.1)
    return {"whole": whole, "mirrored": ImageOps.mirror(whole), "near": near}


def _jpeg(image: Image.Image) -> bytes:
    """At the quality whose size comes nearest to BYTES."""
    low, high, best = 20, 98, b""
    while low <= high:
        quality = (low + high) // 2
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        if not best or abs(len(data) - BYTES) < abs(len(best) - BYTES):
            best = data
        low, high = (quality + 1, high) if len(data) < BYTES else (low, quality - 1)
    return best
