"""Test the errors for files that can't be decoded, and that the limit on pixels is checked in the header."""

import struct

import pytest
from PIL import Image

from models.preprocess.decode import decode
from models.preprocess.errors import BrokenImageError, NotAnImageError, TooManyPixelsError, UnsupportedFormatError
from models.preprocess.transform import load
from models.spec import InputSpec
from tests.samples import encoded, noise, png

DEFAULT = InputSpec(size=224)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_a_truncated_file_is_broken(kind: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), kind)

    for length in (12, 20, 40, len(data) // 2, len(data) - len(data) // 8):
        with pytest.raises(BrokenImageError, match=f"{kind}.*use the whole file"):
            decode(data[:length])


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", NotAnImageError, "empty"),
        (b"hello", NotAnImageError, "5 bytes are not a picture"),
        (b"RIFF\0\0\0\0WAVE", NotAnImageError, "not a picture"),
        (encoded(Image.new("RGB", (2, 2)), "BMP"), UnsupportedFormatError, "BMP"),
        (b"GIF89a", UnsupportedFormatError, "GIF"),
        (b"II*\0", UnsupportedFormatError, "TIFF"),
        (b"MM\0*", UnsupportedFormatError, "TIFF"),
        (b"\0\0\0\x20ftypavif", UnsupportedFormatError, "AVIF"),
        (b"\0\0\0\x20ftypheic", UnsupportedFormatError, "HEIC"),
        (b"%PDF-1.7", UnsupportedFormatError, "PDF"),
        (b"<svg xmlns=", UnsupportedFormatError, "SVG"),
    ],
)
def test_an_unreadable_file_is_named_by_its_format(data: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        decode(data)

    assert "JPEG, PNG or WebP" in str(caught.value)


@pytest.mark.parametrize("width_and_height", [(0, 5), (5, 0)])
def test_a_picture_without_pixels_is_broken(width_and_height: tuple[int, int]) -> None:
    with pytest.raises(BrokenImageError):
        load(png(*width_and_height, depth=8, colour=2, rows=b""), DEFAULT)


def huge(kind: str) -> bytes:
    """Return a file of a few bytes whose header announces 16,000 x 16,000 pixels that it does not contain."""
    side = 16_000
    if kind == "PNG":
        return png(side, side, depth=8, colour=2, rows=b"")
    if kind == "WebP":
        canvas = (side - 1).to_bytes(3, "little") * 2
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_the_pixel_limit_is_checked_in_the_header(kind: str) -> None:
    with pytest.raises(TooManyPixelsError, match=r"16000 x 16000 = 256,000,000 pixels, over the limit of"):
        decode(huge(kind))
    # With a higher limit, decoding detects that the pixels are missing.
    with pytest.raises(BrokenImageError):
        decode(huge(kind)[:-1], max_pixels=2 * 256_000_000)


def test_a_picture_at_the_limit_is_decoded() -> None:
    data = encoded(Image.fromarray(noise(36, 48)), "PNG")

    assert decode(data, max_pixels=48 * 36).shape == (36, 48, 3)
    with pytest.raises(TooManyPixelsError, match="48 x 36"):
        decode(data, max_pixels=48 * 36 - 1)
