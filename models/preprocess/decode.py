"""NEEDS A DOCSTRING."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from models.common.errors import HalftoneError
from models.preprocess.formats import Format, image_format, other_format, webp_size
from models.preprocess.resample import Pixels, optional

MAX_PIXELS = 50_000_000

"""Default ceiling on width x height, checked before anything is decoded. 50 megapixels take 150 MB as a JPEG, and for a
moment 500 MB as a PNG."""

READABLE = "JPEG, PNG or WebP"

_STRIP = 128

_turbo = optional("simplejpeg")


class ImageError(HalftoneError):
    """The bytes can't be turned into pixels."""


class NotAnImageError(ImageError):
    """The bytes are empty or no picture at all."""


class BrokenImageError(ImageError):
    """A JPEG, PNG or WebP file that is cut short or damaged."""


class UnsupportedFormatError(ImageError):
    """A picture, but neither JPEG, PNG nor WebP."""


class TooManyPixelsError(ImageError):
    """The header announces more pixels than allowed."""


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, plain: bool = False) -> Pixels:
    """Decode a picture and turn it upright.

    Grey, palette and CMYK pictures become RGB; transparent ones are laid on white; 16-bit ones keep their high
    byte; the EXIF orientation is applied; of several frames the first is taken; colour profiles are ignored, as
    in the data sets that models are trained on.

    Args:
        data: a whole JPEG, PNG or WebP file; the format is read from the bytes.
        max_pixels: ceiling on width x height, checked from the header before decoding.
        plain: Pillow alone, even where `simplejpeg` is installed; the pixels are the same.

    Returns:
        uint8 RGB of shape (H, W, 3).

    Raises:
        NotAnImageError, UnsupportedFormatError, TooManyPixelsError, BrokenImageError: see there.
    """
    return np.asarray(_open_upright(data, max_pixels, plain))


def upright(image: Image.Image) -> Pixels:
    """An opened picture of any format by the rules of `decode`: uint8 RGB (H, W, 3).

    Raises:
        OSError, SyntaxError, ValueError: as Pillow does where the file is damaged.
    """
    image.load()
    return np.asarray(_upright(_to_rgb(image), _orientation(image)))


def _open_upright(data: bytes, max_pixels: int, plain: bool) -> Image.Image | Pixels:
    """Decode to an upright RGB picture; whatever Pillow raises on a damaged file becomes one error."""
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
        return _upright(_to_rgb(image), _orientation(image))
    except (ImageError, MemoryError):
        raise
    # Pillow's decoders raise many types on damaged files (OSError, SyntaxError, ValueError, struct.error, …).
    except Exception as error:
        raise BrokenImageError(
            f"the {format_} picture is damaged or cut short ({error}): send the whole file as it was saved"
        ) from error


def _readable_format(data: bytes) -> Format:
    format_ = image_format(data)
    if format_ is not None:
        return format_
    if not data:
        raise NotAnImageError(f"the picture is empty (0 bytes): send a {READABLE} file")
    other = other_format(data)
    if other is not None:
        raise UnsupportedFormatError(f"{other} pictures are not read: convert it to {READABLE}")
    raise NotAnImageError(f"these {len(data)} bytes are not a picture: send a {READABLE} file")


def _open(data: bytes, format_: Format) -> ImageFile:
    # Opened by the format's own class rather than Image.open: no other decoder can be reached, and the ceiling
    # on pixels is ours instead of Pillow's process-wide one.
    file = io.BytesIO(data)
    if format_ == "JPEG":
        return JpegImagePlugin.JpegImageFile(file)
    if format_ == "PNG":
        return PngImagePlugin.PngImageFile(file)
    return WebPImagePlugin.WebPImageFile(file)


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    if size is None:
        raise BrokenImageError("the WebP header is damaged or cut short: send the whole file as it was saved")
    width, height = size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"the picture has {width} x {height} = {width * height:,} pixels, over the limit of {max_pixels:,}: "
            "send it smaller"
        )


def _turbo_decoded(data: bytes, header: Image.Image) -> Pixels | None:
    """The pixels of an intact, upright JPEG with three channels; None where Pillow has to decide.

    Both use libjpeg-turbo and decode alike, but Pillow's pixels would be copied twice more on the way to an array.
    """
    if _turbo is None or header.mode != "RGB" or _orientation(header) != 1:
        return None
    try:
        # Strict: whatever libjpeg only warns of is an error here, and Pillow says whether the picture can be used.
        pixels: Pixels = _turbo.decode_jpeg(data, strict=True)
    except ValueError:
        return None
    return pixels if pixels.shape == (header.height, header.width, 3) else None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion would clip every value above 255 to white.
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency on a white ground."""
    rgb = Image.new("RGB", image.size)
    # In strips: three copies of a large picture with four bytes a pixel would be most of what a server has.
    for top in range(0, image.height, _STRIP):
        strip = image.crop((0, top, image.width, min(top + _STRIP, image.height))).convert("RGBA")
        rgb.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
    return rgb


_TURN: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or its EXIF block is damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    # A damaged EXIF block (any of several exception types) is no reason to refuse intact pixels.
    except Exception:
        return 1
    return value if value in _TURN else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURN[orientation]) if orientation in _TURN else image
