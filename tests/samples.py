"""Pictures with known pixels, and small bundles without a network."""

import io
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.manifest import Manifest
from models.spec import InputSpec

ORIENTATION = 0x0112

# EXIF 2.32, tag 0x0112: what a viewer does with the stored picture.
UPRIGHT: Mapping[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(image: Image.Image, kind: str, orientation: int, **options: Any) -> bytes:
    """The same with an EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, kind, exif=exif, **options)


def noise(height: int, width: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Random pixels, the same every time: no turn or flip of them looks like another."""
    return np.random.default_rng(7).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Length, type, content and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, before: bytes = b"") -> bytes:
    """A PNG file from its raw rows (each starts with filter byte 0), for the kinds that Pillow does not write.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits a sample.
        colour: colour type: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA.
        rows: filter byte and samples of every row.
        before: chunks between header and data.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def manifest(**changes: Any) -> Manifest:
    """The manifest of a model with two classes."""
    values = {
        "name": "tiny",
        "architecture": "resnet18",
        "input": InputSpec(size=32),
        "labels": ("cat", "dog"),
        "trained": True,
        "source": "a test",
        "license": "apache-2.0",
    }
    return Manifest(**values | changes)  # type: ignore[arg-type]


def small_bundle(folder: Path, **changes: Any) -> Bundle:
    """A bundle with a few bytes in place of weights; keywords change its manifest."""
    with Bundle.creating(folder, manifest(**changes)) as bundle:
        bundle.write(WEIGHTS, b"weights", made_by="`make weights`")
    return bundle


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `manifest.json` as an editor would."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
