"""Decode a JPEG, PNG or WebP file to upright RGB pixels, or raise an `ImageError`.

The format is detected from the bytes, and the limit on pixels is checked in the header before decoding. Pillow is the
reference decoder. If the optional package `simplejpeg` is installed, it decodes ordinary JPEGs, to the same pixels.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from models.common.errors import HalftoneError
from models.preprocess.formats import Format, image_format, other_format, webp_size
from models.preprocess.resample import Pixels, optional

MAX_PIXELS = 50_000_000
"""Default limit on width x height, checked before decoding. Decoding 50 megapixels takes 150 MB from a JPEG, and for a
moment 500 MB from a PNG."""

READABLE = "JPEG, PNG or WebP"

_STRIP_ROWS = 128
_EXIF_ORIENTATION = 0x0112
_TRANSPOSITIONS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_turbo = optional("simplejpeg")


class ImageError(HalftoneError):
    """The bytes can't be turned into pixels."""


class NotAnImageError(ImageError):
    """The bytes are empty or not an image."""


class BrokenImageError(ImageError):
    """The JPEG, PNG or WebP file is truncated or damaged."""


class UnsupportedFormatError(ImageError):
    """The bytes are an image, but neither JPEG, PNG nor WebP."""


class TooManyPixelsError(ImageError):
    """The header announces more pixels than the limit."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, plain: bool = False) -> Pixels:
    """Decode an image and apply its EXIF orientation.

    Grey, palette and CMYK images become RGB. Transparent images are composited on white. 16-bit samples keep their
    high byte. Of several frames, the first is decoded. Colour profiles are ignored, as in the data sets that models
    are trained on.

    Args:
        data: a whole JPEG, PNG or WebP file; the format is detected from the bytes.
        max_pixels: limit on width x height, checked in the header before decoding.
        plain: use only Pillow, even if `simplejpeg` is installed; the pixels are the same.

    Returns:
        uint8 RGB of shape (H, W, 3).

    Raises:
        ImageError: NotAnImageError, UnsupportedFormatError, TooManyPixelsError or BrokenImageError.
    """
    return np.asarray(decode_upright(data, max_pixels=max_pixels, plain=plain))


def upright(image: Image.Image) -> Pixels:
    """Convert an opened image of any format to uint8 RGB (H, W, 3) by the rules of `decode`.

    Raises:
        OSError, SyntaxError, ValueError: from Pillow, if the file is damaged.
    """
    image.load()
    return np.asarray(_oriented(_to_rgb(image), _orientation(image)))


def decode_upright(data: bytes, *, max_pixels: int, plain: bool) -> Image.Image | Pixels:
    """Decode as `decode` does, but to pixels or a Pillow image, whichever needs no further copy.

    Raises:
        ImageError: as `decode`.
    """
    format_ = _readable_format(data)
    if format_ == "WebP":
        _check_size(webp_size(data), max_pixels)
    try:
        image = _open(data, format_)
        _check_size(image.size, max_pixels)
        pixels = _turbo_decoded(data, image) if format_ == "JPEG" and not plain else None
        if pixels is not None:
            return pixels
        image.load()
        return _oriented(_to_rgb(image), _orientation(image))
    except (ImageError, MemoryError):
        raise
    # Pillow's decoders raise many types on damaged files (OSError, SyntaxError, ValueError, struct.error, …).
    except Exception as error:
        raise BrokenImageError(
            f"the {format_} picture is damaged or incomplete ({error}): send the whole file as it was saved"
        ) from error


def _readable_format(data: bytes) -> Format:
    format_ = image_format(data)
    if format_ is not None:
        return format_
    if not data:
        raise NotAnImageError(f"the picture is empty (0 bytes): send a {READABLE} file")
    other = other_format(data)
    if other is not None:
        raise UnsupportedFormatError(f"{other} pictures are not supported: convert the file to {READABLE}")
    raise NotAnImageError(f"these {len(data)} bytes are not a picture: send a {READABLE} file")


def _open(data: bytes, format_: Format) -> ImageFile:
    # The format's own class rather than Image.open: no other decoder is reachable, and our limit on pixels applies
    # instead of Pillow's process-wide limit.
    file = io.BytesIO(data)
    if format_ == "JPEG":
        return JpegImagePlugin.JpegImageFile(file)
    if format_ == "PNG":
        return PngImagePlugin.PngImageFile(file)
    return WebPImagePlugin.WebPImageFile(file)


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    if size is None:
        raise BrokenImageError("the WebP header is damaged or incomplete: send the whole file as it was saved")
    width, height = size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"the picture has {width} x {height} = {width * height:,} pixels, over the limit of {max_pixels:,}: "
            "send a smaller version"
        )


def _turbo_decoded(data: bytes, header: Image.Image) -> Pixels | None:
    """Decode an intact, upright JPEG with three channels; return None if Pillow has to decode the file.

    Both use libjpeg-turbo and give the same pixels, but Pillow needs two more copies to make an array.
    """
    if _turbo is None or header.mode != "RGB" or _orientation(header) != 1:
        return None
    try:
        # Strict: a warning of libjpeg is an error here, and Pillow then decides whether the image is usable.
        pixels: Pixels = _turbo.decode_jpeg(data, strict=True)
    except ValueError:
        return None
    return pixels if pixels.shape == (header.height, header.width, 3) else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips every value above 255 to white.
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composite a transparent image on white."""
    rgb = Image.new("RGB", image.size)
    # In strips: three copies of a large image with four bytes a pixel would take most of a server's memory.
    for top in range(0, image.height, _STRIP_ROWS):
        strip = image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height))).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return rgb


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if it is missing or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    # A damaged EXIF block (any of several exception types) is no reason to reject intact pixels.
    except Exception:
        return 1
    return value if value in _TRANSPOSITIONS else 1


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSITIONS[orientation]) if orientation in _TRANSPOSITIONS else image
