"""Read the orientation of a photograph from its metadata, and turn it upright.

Pillow's `Image.getexif` reads every entry of an EXIF block, which can name the same megabytes thousands of times; this
reads one.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

_TAG = 0x0112
_FORMATS = {3: "H", 4: "I", 8: "h", 9: "i"}
"""Format of an entry's first number by the entry's type: the integers of 16 and 32 bits (TIFF 6.0, section 2)."""

_ENTRY_BYTES = 12
_XMP = r'tiff:Orientation(?:="|>)([0-9])'
_TRANSPOSITIONS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """Return the orientation of an opened image, 1 to 8 (Exif 2.32, tag 0x0112); 1 is upright.

    XMP counts if EXIF does not have the tag. What is missing or damaged is 1: intact pixels are not rejected for it.
    """
    try:
        value = _from_exif(_exif(image))
    except (ValueError, struct.error):
        return 1
    if value is None:
        value = _from_xmp(image)
    return value if value in _TRANSPOSITIONS else 1


def oriented(image: Image.Image, value: int) -> Image.Image:
    """Return the image turned upright from an orientation of 1 to 8."""
    return image.transpose(_TRANSPOSITIONS[value]) if value in _TRANSPOSITIONS else image


def _exif(image: Image.Image) -> bytes:
    """Return the EXIF block, empty if there is none.

    Raises:
        ValueError: the block is text (by ImageMagick, in a PNG) and damaged.
    """
    block: bytes | None = image.info.get("exif")
    if block is None and "Raw profile type exif" in image.info:
        block = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    block = block or b""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    return block


def _from_exif(block: bytes) -> int | None:
    """Return the number of the tag's last entry in the first directory, None if there is none.

    Raises:
        struct.error: the block ends too early.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, start)
    found = None
    for at in range(start + 2, min(start + 2 + count * _ENTRY_BYTES, len(block) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        tag, kind, numbers = struct.unpack_from(order + "HHI", block, at)
        if tag == _TAG:
            format_ = _FORMATS.get(kind)
            found = struct.unpack_from(order + format_, block, at + 8)[0] if format_ and numbers == 1 else 1
    return found


def _from_xmp(image: Image.Image) -> int | None:
    text: str | bytes | None = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp")
    if not text:
        return None
    found = re.search(_XMP, text) if isinstance(text, str) else re.search(_XMP.encode(), text)
    return int(found[1]) if found else None
