"""Small files, and requests, that are built to take much time or memory: `BOMBS`.

Each kind is there twice where it can be: as large as a request may be, and at the ceiling that refuses it
(docs/security.md), where it costs most.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

_EXIF = b"Exif\0\0"
_SEGMENT = 65_000

MAX_SIDE, MAX_HEADER_BYTES, MAX_CHUNKS = 65_535, 2**23, 10_000
"""The ceilings of the service."""


class Limits(NamedTuple):
    """What a service accepts."""

    size: int = 32 * 2**20 - 1000
    """Most bytes of a body."""

    pixels: int = 49_000_000
    """Most pixels; a square number."""

    @property
    def side(self) -> int:
        """Side of the largest square."""
        return int(self.pixels**0.5)


def jpeg(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    """Return a JPEG of one colour."""
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(file: bytes, count: int) -> bytes:
    """Repeat the last scan of a progressive JPEG, which is empty, until it has `count` scans."""
    last = file[file.rindex(b"\xff\xda") : -2]
    return file[:-2] + last * (count - file.count(b"\xff\xda")) + file[-2:]


def with_segments(file: bytes, code: int, content: bytes, total: int) -> bytes:
    """Fill a JPEG with copies of one segment up to `total` bytes."""
    segment = b"\xff" + bytes([code]) + struct.pack(">H", len(content) + 2) + content
    return file[:2] + segment * ((total - len(file)) // len(segment)) + file[2:]


def with_size(file: bytes, width: int, height: int) -> bytes:
    """Write another size into the header of a baseline JPEG."""
    at = file.index(b"\xff\xc0") + 5
    return file[:at] + struct.pack(">HH", height, width) + file[at + 4 :]


def exif(entries: int, size: int) -> bytes:
    """Return an EXIF block of `size` bytes in which each entry is a list of rationals that fills the block."""
    head = b"MM\0*" + struct.pack(">IH", 8, entries)
    table = b"".join(struct.pack(">HHII", 0x9000 + i % 1000, 5, (size - 8) // 8, 8) for i in range(entries))
    return (head + table).ljust(size, b"\0")


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, colour: int = 2, bits: int = 8, extra: bytes = b"") -> bytes:
    """Return a PNG of zeros, `colour` is its colour type; `extra` are chunks before the pixels."""
    row = 1 + -(-width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * bits // 8)
    deflate = zlib.compressobj(9)
    pixels = b"".join(deflate.compress(bytes(min(2**20, left))) for left in range(row * height, 0, -(2**20)))
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(256)) if colour == 3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", pixels + deflate.flush())
    return b"\x89PNG\r\n\x1a\n" + head + palette + extra + data + chunk(b"IEND")


def webp(width: int, height: int, **options: object) -> bytes:
    """Return a WebP of one colour."""
    file = io.BytesIO()
    Image.new("RGBA", (width, height), "red").save(file, "WebP", **options)
    return file.getvalue()


def with_chunks(file: bytes, count: int) -> bytes:
    """Append empty chunks to a WebP with metadata."""
    body = file[8:] + b"none\0\0\0\0" * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _app1(limits: Limits, total: int) -> bytes:
    return with_segments(jpeg(64, 64), 0xE1, _EXIF + bytes(_SEGMENT), min(total, limits.size))


def _resources(limits: Limits) -> bytes:
    block = b"".join(b"8BIM" + struct.pack(">H", code) + bytes(6) for code in range(5_400))
    return with_segments(jpeg(64, 64), 0xED, b"Photoshop 3.0\0" + block, min(MAX_HEADER_BYTES, limits.size))


def _filled(content: bytes) -> Callable[[Limits], bytes]:
    """Return a PNG with copies of a chunk before its pixels."""
    return lambda limits: png(64, 64, extra=content * ((limits.size - 500) // len(content)))


def _scans(mode: str, **options: object) -> Callable[[Limits], bytes]:
    def file(limits: Limits) -> bytes:
        # The largest with these scans: pixels in colour count twice.
        side = int((limits.pixels * {"L": 1, "RGB": 0.5 * 12 / 14}[mode]) ** 0.5)
        return with_scans(jpeg(side, side, mode, progressive=True, **options), {"L": 12, "RGB": 14}[mode])

    return file


def _behind(limits: Limits, filling: bytes) -> bytes:
    """Return a JPEG with many scans behind many markers, or behind padding that is none."""
    file = jpeg(64, 64, progressive=True)
    end = filling * ((limits.size - 10_000) // len(filling)) + b"\0"
    return file[:-2] + end + b"\xff\xda\0\2" * 1_000 + file[-2:]


PICTURES: dict[str, Callable[[Limits], bytes]] = {
    "scans: 1,000": lambda limits: with_scans(jpeg(limits.side, limits.side, "L", progressive=True), 1_000),
    "scans: most, grey": _scans("L"),
    "scans: most, colour": _scans("RGB"),
    "scans: most, fine colour": _scans("RGB", subsampling=0),
    "scans: behind comments": lambda limits: _behind(limits, b"\xff\xfe\0\2"),
    "scans: behind padding": lambda limits: _behind(limits, b"\xff" * 4),
    "segments: EXIF": lambda limits: _app1(limits, limits.size),
    "segments: EXIF, most": lambda limits: _app1(limits, MAX_HEADER_BYTES),
    "segments: empty": lambda limits: with_segments(jpeg(64, 64), 0xE4, b"", limits.size),
    "segments: tables": lambda limits: with_segments(jpeg(64, 64), 0xDB, b"\0" + bytes([1]) * 64, limits.size),
    "segments: padding": lambda limits: b"\xff\xd8" + b"\xff" * (limits.size - 1000) + jpeg(64, 64)[2:],
    "segments: junk": lambda limits: b"\xff\xd8\xff\xe4\0\2" + bytes(limits.size - 1000) + jpeg(64, 64)[2:],
    "segments: Photoshop": _resources,
    "EXIF entries": lambda limits: with_segments(jpeg(64, 64), 0xE1, _EXIF + exif(5_000, _SEGMENT), _SEGMENT + 2_000),
    "EXIF entries, PNG": lambda limits: png(
        64, 64, extra=chunk(b"eXIf", exif(65_000, min(MAX_HEADER_BYTES, limits.size) - 1000))
    ),
    "chunks: private": _filled(chunk(b"prVt")),
    "chunks: text": _filled(chunk(b"tEXt", b"a\0b")),
    "chunks: packed text": _filled(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 10)))),
    "chunks: no pixels": _filled(chunk(b"IDAT")),
    "chunks: WebP": lambda limits: with_chunks(webp(64, 64, exif=_EXIF), limits.size // 8 - 100),
    "chunks: WebP, most": lambda limits: with_chunks(webp(64, 64, exif=_EXIF), MAX_CHUNKS - 5),
    "tall": lambda limits: png(1, limits.pixels, colour=0),
    "tall, most": lambda limits: png(limits.pixels // MAX_SIDE, MAX_SIDE, colour=6),
    "wide": lambda limits: png(limits.pixels, 1, colour=0),
    "wide, most": lambda limits: png(MAX_SIDE, limits.pixels // MAX_SIDE, colour=6),
    "large: JPEG": lambda limits: jpeg(limits.side, limits.side),
    "large: CMYK": lambda limits: jpeg(limits.side, limits.side, "CMYK"),
    "large: RGBA": lambda limits: png(limits.side, limits.side, colour=6),
    "large: RGBA of 16 bits": lambda limits: png(limits.side, limits.side, colour=6, bits=16),
    "large: palette": lambda limits: png(limits.side, limits.side, colour=3),
    "large: grey of 16 bits": lambda limits: png(limits.side, limits.side, colour=0, bits=16),
    "large: WebP": lambda limits: webp(*[int(limits.side * 0.79)] * 2),
    "large: lossless WebP": lambda limits: webp(*[int(limits.side * 0.79)] * 2, lossless=True),
    "header over little data": lambda limits: with_size(jpeg(320, 240), limits.side, limits.side),
}
"""Picture files by kind."""

JSON: dict[str, Callable[[Limits], bytes]] = {
    "JSON: numbers": lambda limits: b'{"a":[' + b"0," * (limits.size // 2 - 10) + b"0]}",
    "JSON: objects": lambda limits: b'{"a":[' + b"{}," * (limits.size // 3 - 10) + b"{}]}",
    "JSON: most numbers": lambda limits: b'{"a":[' + b"0.12345678901234567," * (2**19 - 20) + b"0]}",
    "JSON: most objects": lambda limits: b'{"a":[' + b'{"b":0},' * (2**19 // 9 - 20) + b"{}]}",
    "JSON: digits": lambda limits: b'{"a":[' + (b"9" * 4_299 + b",") * (limits.size // 4_300 - 1) + b"0]}",
    "JSON: nesting": lambda limits: b'{"a":' + b"[" * 2**18,
    "JSON: text": lambda limits: b'{"a":"' + rb"\u0000" * (limits.size // 6 - 10) + b'"}',
}
"""JSON objects by kind."""
