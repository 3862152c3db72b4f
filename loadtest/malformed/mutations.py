"""Mutations of real JPEG, PNG and WebP files, as an attacker or a broken disk would produce them."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image

_SIZES = (0, 1, 2, 7_000, 8_000, 16_383, 30_000, 65_500, 65_535)
_LARGE = 2**20
"""Larger files are sent as they are and not mutated: small ones test the same code."""


def valid_files(photo: Path) -> list[bytes]:
    """Return valid files of many formats and modes, encoded from a photograph."""
    with Image.open(photo) as opened:
        image = opened.convert("RGB").resize((160, 120))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = image.convert("L")
    frames = [image.rotate(angle) for angle in (90, 180)]
    return [
        _saved(image, "JPEG", quality=90),
        _saved(image, "JPEG", progressive=True, subsampling=2),
        _saved(image, "JPEG", exif=exif, comment="a comment"),
        _saved(grey, "JPEG"),
        _saved(image.convert("CMYK"), "JPEG"),
        _saved(image, "PNG"),
        _saved(grey.convert("1"), "PNG"),
        _saved(grey.convert("I;16"), "PNG"),
        _saved(image.convert("P"), "PNG", transparency=3),
        _saved(image.convert("RGBA"), "PNG"),
        _saved(grey.convert("LA"), "PNG"),
        _saved(image, "PNG", save_all=True, append_images=frames),
        _saved(image, "WebP"),
        _saved(image, "WebP", lossless=True, exif=exif),
        _saved(image.convert("RGBA"), "WebP", quality=10),
        _saved(image, "WebP", save_all=True, append_images=frames),
    ]


def malformed_files(valid: Sequence[bytes], folder: Path | None, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` files: first those of the folder as they are, then mutations of all.

    Args:
        valid: files to mutate, from `valid_files`.
        folder: additional files, at any depth; None: no folder.
        count: number of files.
        seed: seed of the mutations.
    """
    random_ = random.Random(seed)
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    for path in paths[:count]:
        yield path.read_bytes()
    bases = [*valid, *(path.read_bytes() for path in paths if 0 < path.stat().st_size <= _LARGE)]
    for _ in range(count - len(paths)):
        data = bytearray(random_.choice(bases))
        for _ in range(random_.choice((1, 1, 1, 2, 3))):
            data = random_.choice(_MUTATIONS)(data, random_) if data else data
        yield bytes(data)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


Mutation = Callable[[bytearray, random.Random], bytearray]


def _cut(data: bytearray, random_: random.Random) -> bytearray:
    return data[: random_.randrange(len(data))]


def _flip(data: bytearray, random_: random.Random) -> bytearray:
    for _ in range(random_.choice((1, 2, 8, 64))):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    return data


def _flip_head(data: bytearray, random_: random.Random) -> bytearray:
    for _ in range(random_.choice((1, 2, 4))):
        data[random_.randrange(min(len(data), 64))] = random_.randrange(256)
    return data


def _splice(data: bytearray, random_: random.Random) -> bytearray:
    """Insert a copy of a piece of the file at another place."""
    start = random_.randrange(len(data))
    piece = data[start : start + random_.randrange(1, 4096)]
    at = random_.randrange(len(data))
    return data[:at] + piece + data[at:]


def _drop(data: bytearray, random_: random.Random) -> bytearray:
    start = random_.randrange(len(data))
    return data[:start] + data[start + random_.randrange(1, 512) :]


def _fill(data: bytearray, random_: random.Random) -> bytearray:
    start = random_.randrange(len(data))
    length = min(random_.randrange(1, 512), len(data) - start)
    data[start : start + length] = bytes([random_.choice((0, 255, random_.randrange(256)))]) * length
    return data


def _junk(data: bytearray, random_: random.Random) -> bytearray:
    junk = random_.randbytes(random_.randrange(1, 2048))
    return data + junk if random_.random() < 0.5 else data[: random_.randrange(min(len(data), 32))] + junk


def _resize(data: bytearray, random_: random.Random) -> bytearray:
    """Change the size in the header and keep the rest valid."""
    width, height = random_.choice(_SIZES), random_.choice(_SIZES)
    if data.startswith(b"\x89PNG") and len(data) > 33:
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif data.startswith(b"\xff\xd8"):
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            at = data.find(marker)
            if 0 <= at < len(data) - 9:
                data[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    elif data[12:16] == b"VP8X" and len(data) > 30:
        data[24:30] = max(width - 1, 0).to_bytes(3, "little") + max(height - 1, 0).to_bytes(3, "little")
    elif data[12:16] == b"VP8 " and len(data) > 30:
        data[26:30] = (width & 0x3FFF).to_bytes(2, "little") + (height & 0x3FFF).to_bytes(2, "little")
    return data


def _wrong_length(data: bytearray, random_: random.Random) -> bytearray:
    """Overwrite up to four bytes with an extreme length."""
    at = random_.randrange(max(1, len(data) - 4))
    data[at : at + 4] = random_.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff"))
    return data


_MUTATIONS: tuple[Mutation, ...] = (_cut, _flip, _flip_head, _splice, _drop, _fill, _junk, _resize, _wrong_length)
