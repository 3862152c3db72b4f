"""Bytes to pixels, pinned: orientation, colour, transparency and depth; and the same pixels as timm's transform."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.preprocess import (
    ImageError,
    Pixels,
    TooManyPixelsError,
    UnsupportedFormatError,
    decode,
    fit,
    load,
)
from models.spec import InputSpec
from tests.servers import PHOTOS

SPEC = InputSpec(size=224, crop_fraction=0.875)
# Four flat quadrants, so that JPEG's loss and chroma subsampling stay inside the tolerance.
COLOURS = np.array([[[200, 40, 40], [40, 180, 60]], [[50, 60, 190], [210, 200, 60]]], dtype=np.uint8)
UPRIGHT = COLOURS.repeat(16, axis=0).repeat(24, axis=1)
# EXIF 2.32, tag 0x0112: how a viewer turns the stored picture; here its inverse, to make the stored one.
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT)))
    options = {} if kind == "PNG" else {"quality": 95}

    pixels = decode(encoded(stored, kind, exif=exif, **options))

    assert pixels.shape == UPRIGHT.shape
    inner = np.s_[2:14, 2:22]
    assert np.abs(pixels.astype(int)[inner] - UPRIGHT.astype(int)[inner]).max() <= (0 if kind == "PNG" else 8)


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)

    pixels = decode(encoded(Image.fromarray(grey), "PNG"))

    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, axis=2))


def test_palette_is_looked_up() -> None:
    image = Image.fromarray(UPRIGHT).quantize(4)

    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 20, 30, 255)
    rgba[3] = (0, 0, 0, 128)

    pixels = decode(encoded(Image.fromarray(rgba), "PNG"))

    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[2, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels[3, 0].astype(int) - 127).max() <= 1


def test_a_transparent_palette_is_laid_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9] + [0] * 765)

    assert decode(encoded(image, "PNG", transparency=0))[0, 0].tolist() == [255, 255, 255]


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))

    red = decode(encoded(cmyk, "JPEG", quality=95))[16, 16]

    assert red[0] > 240
    assert red[1:].max() < 20


def test_sixteen_bits_keep_the_high_byte() -> None:
    deep = np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16)

    pixels = decode(encoded(Image.fromarray(deep), "PNG"))

    assert pixels[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]

    data = encoded(frames[0], "WebP", save_all=True, append_images=frames[1:], lossless=True)

    assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_fraction", [0.875, 0.95, 1.0])
@pytest.mark.parametrize("photo", sorted(PHOTOS.glob("*.jpg")), ids=lambda path: path.stem)
def test_same_pixels_as_timms_evaluation_transform(photo: Path, crop_fraction: float, interpolation: str) -> None:
    spec = InputSpec(size=224, crop_fraction=crop_fraction, interpolation=interpolation)  # type: ignore[arg-type]
    transform = timm.data.create_transform(
        (3, 224, 224), interpolation=interpolation, crop_pct=crop_fraction, mean=(0, 0, 0), std=(1, 1, 1)
    )
    theirs = transform(Image.open(photo).convert("RGB")).numpy().transpose(1, 2, 0) * 255

    difference = np.abs(load(photo.read_bytes(), spec).astype(float) - theirs)

    assert difference.max() <= 2.01
    assert difference.mean() <= 0.05


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), mode=st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK", "LA"])
)
def test_any_size_and_mode_fits(width: int, height: int, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    data = encoded(Image.new(mode, (width, height)), kind)

    pixels = fit(decode(data), SPEC)

    assert (pixels.dtype, pixels.shape) == (np.uint8, (224, 224, 3))
    np.testing.assert_array_equal(load(data, SPEC), pixels)


SMALL = {kind: encoded(Image.open(PHOTOS / "cat.jpg").resize((48, 36)), kind) for kind in ("JPEG", "PNG", "WebP")}


@pytest.mark.parametrize("kind", SMALL)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_picture_decodes_or_raises_one_error(kind: str, data: st.DataObject) -> None:
    picture = bytearray(SMALL[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(picture[: data.draw(st.integers(0, len(picture)))])

    # Any other exception than this one would end the test.
    with contextlib.suppress(ImageError):
        assert load(cut, SPEC).shape == (224, 224, 3)


def test_the_pixel_ceiling() -> None:
    data = SMALL["PNG"]

    assert decode(data, max_pixels=48 * 36).shape == (36, 48, 3)
    with pytest.raises(TooManyPixelsError, match="48 x 36"):
        decode(data, max_pixels=48 * 36 - 1)


def test_formats_are_told_by_their_bytes() -> None:
    with pytest.raises(UnsupportedFormatError, match="BMP"):
        decode(encoded(Image.new("RGB", (2, 2)), "BMP"))
