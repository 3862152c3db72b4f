"""Decode a JPEG, PNG or WebP file to upright RGB pixels, or raise an `ImageError`.

The format is detected from the bytes, and the limit on pixels is checked in the header before decoding. Pillow is the
reference decoder. If the optional package `simplejpeg` is installed, it decodes ordinary JPEGs, to the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from models.preprocess.ceilings import MAX_SIDE, BoundedFile, check_chunks, check_scan_bytes, check_scans
from models.preprocess.errors import (
    BrokenImageError,
    ImageError,
    NotAnImageError,
    TooManyPixelsError,
    UnsupportedFormatError,
)
from models.preprocess.formats import Format, image_format, other_format, webp_size
from models.preprocess.orientation import orientation, oriented
from models.preprocess.resample import Pixels, optional

MAX_PIXELS = 50_000_000
"""Default limit on width x height, checked before decoding: for a moment, 50 megapixels take up to 500 MB."""

READABLE = "JPEG, PNG or WebP"

_STRIP_ROWS = 128
_BYTES_A_PIXEL = 10
"""Memory that decoding a pixel may take. Formats that take more have a lower limit on pixels."""
_WEBP_BYTES_A_PIXEL = 16
"""libwebp keeps two canvases of 4 bytes a pixel, and the frame is copied twice."""
_BLOCK_BYTES = 128
"""libjpeg keeps the coefficients of a progressive JPEG, 64 a block and 2 bytes each, beside 4 bytes a pixel."""

_turbo = optional("simplejpeg")


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
        ImageError: NotAnImageError, UnsupportedFormatError, TooManyPixelsError, TooComplexError or BrokenImageError.
        MemoryError, ImportError, OSError: the process has no memory or no files left; not the picture's fault.
    """
    return np.asarray(decode_upright(data, max_pixels=max_pixels, plain=plain))


def upright(image: Image.Image) -> Pixels:
    """Convert an opened image of any format to uint8 RGB (H, W, 3) by the rules of `decode`.

    Raises:
        OSError, SyntaxError, ValueError: from Pillow, if the file is damaged.
    """
    image.load()
    return np.asarray(oriented(_to_rgb(image), orientation(image)))


def decode_upright(data: bytes, *, max_pixels: int, plain: bool) -> Image.Image | Pixels:
    """Decode as `decode` does, but to pixels or a Pillow image, whichever needs no further copy.

    Raises:
        ImageError, MemoryError, ImportError, OSError: as `decode`.
    """
    format_, image = _readable_format(data), None
    try:
        image = _OPENERS[format_](data, max_pixels)
        pixels = _turbo_decoded(data, image) if format_ == "JPEG" and not plain else None
        if pixels is not None:
            return pixels
        image.load()
        return oriented(_to_rgb(image), orientation(image))
    except (ImageError, MemoryError, ImportError):
        raise
    # Pillow's decoders raise many types on damaged files (OSError, SyntaxError, ValueError, struct.error, …).
    except Exception as error:
        # With a number it is the operating system's, which has no open files left, for example.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if image is not None or format_ == "WebP":
            _check_memory(image.size if image is not None else webp_size(data))
        raise BrokenImageError(
            f"the {format_} picture is damaged or incomplete ({error}): use the whole file as it was saved"
        ) from error


def _readable_format(data: bytes) -> Format:
    format_ = image_format(data)
    if format_ is not None:
        return format_
    if not data:
        raise NotAnImageError(f"the picture is empty (0 bytes): use a {READABLE} file")
    other = other_format(data)
    if other is not None:
        raise UnsupportedFormatError(f"{other} pictures are not supported: convert the file to {READABLE}")
    raise NotAnImageError(f"these {len(data)} bytes are not a picture: use a {READABLE} file")


class _JpegFile(JpegImagePlugin.JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """Do nothing: Pillow would read every entry of the EXIF block, for a resolution that is not used."""


# The format's own class rather than Image.open: no other decoder is reachable, and our limit on pixels applies instead
# of Pillow's process-wide limit.


def _open_jpeg(data: bytes, max_pixels: int) -> Image.Image:
    file = BoundedFile(data)
    image = _JpegFile(file)
    file.header_read()
    pixels, blocks, progressive = image.width * image.height, _blocks(image), "progressive" in image.info
    if progressive:
        held = 4 + _BLOCK_BYTES * blocks / pixels
        _check_size(image.size, max_pixels, held, f"a progressive JPEG of {image.layers} channels")
    else:
        _check_size(image.size, max_pixels)
    check_scans(data, pixels, image.layers)
    check_scan_bytes(data, file.tell(), blocks, progressive=progressive)
    return image


def _open_png(data: bytes, max_pixels: int) -> Image.Image:
    file = BoundedFile(data)
    image = PngImagePlugin.PngImageFile(file)
    file.header_read()
    _check_size(image.size, max_pixels)
    return image


def _open_webp(data: bytes, max_pixels: int) -> Image.Image:
    # Before Pillow, which allocates the canvas when it opens the file.
    size = webp_size(data)
    if size is None:
        raise BrokenImageError("the WebP header is damaged or incomplete: use the whole file as it was saved")
    _check_size(size, max_pixels, _WEBP_BYTES_A_PIXEL, "a WebP")
    check_chunks(data)
    image = WebPImagePlugin.WebPImageFile(BoundedFile(data))
    _check_size(image.size, max_pixels, _WEBP_BYTES_A_PIXEL, "a WebP")
    return image


_OPENERS: dict[Format, Callable[[bytes, int], Image.Image]] = {
    "JPEG": _open_jpeg,
    "PNG": _open_png,
    "WebP": _open_webp,
}


def _blocks(image: JpegImagePlugin.JpegImageFile) -> int:
    """Return the number of 8 x 8 blocks of all components that a JPEG's header announces."""
    most_across, most_down = (max(layer[axis] for layer in image.layer) for axis in (1, 2))
    return sum(
        -(-image.width * across // (8 * most_across)) * -(-image.height * down // (8 * most_down))
        for _, across, down, _ in image.layer
    )


def _check_size(size: tuple[int, int], max_pixels: int, held: float = _BYTES_A_PIXEL, kind: str = "") -> None:
    """Refuse a picture with too many pixels; decoding one pixel of this `kind` takes `held` bytes."""
    width, height = size
    if max(size) > MAX_SIDE:
        raise TooManyPixelsError(
            f"the picture has {width} x {height} pixels, and a side may have {MAX_SIDE:,}: use a smaller version"
        )
    most = int(max_pixels * min(1, _BYTES_A_PIXEL / held))
    if width * height > most:
        limit = f"{most:,} for {kind}" if most < max_pixels else f"{most:,}"
        raise TooManyPixelsError(
            f"the picture has {width} x {height} = {width * height:,} pixels, over the limit of {limit}: "
            "use a smaller version"
        )


def _check_memory(size: tuple[int, int] | None) -> None:
    """Raise a MemoryError if there is less than a picture takes: the decoders in C call it damaged then."""
    if size is not None:
        bytearray(size[0] * size[1] * _WEBP_BYTES_A_PIXEL)


def _turbo_decoded(data: bytes, header: Image.Image) -> Pixels | None:
    """Decode an intact, upright JPEG with three channels; return None if Pillow has to decode the file.

    Both use libjpeg-turbo and give the same pixels, but Pillow needs two more copies to make an array.
    """
    if _turbo is None or header.mode != "RGB" or orientation(header) != 1:
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
