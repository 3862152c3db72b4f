"""Decode bytes to pixels, value by value; the expectations are computed with numpy alone."""

import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from models.preprocess.decode import decode
from models.preprocess.transform import fit, load
from models.spec import InputSpec
from tests.samples import UPRIGHT, encoded, noise, oriented, png, png_chunk
from tests.servers import PHOTOS

DEFAULT = InputSpec(size=224, crop_fraction=0.875)
PLAIN = noise(9, 14)
LOSSLESS = {"PNG": {}, "WebP": {"lossless": True, "exact": True}}

# First half of the SHA-256 of the pixels at the default model's input (bicubic, crop 0.875), from Pillow alone
# (test_fast_libraries.py compares the faster libraries with it). The same with Pillow 11.3 and 13.0; torchvision's JPEG
# decoder gives the same pixels before resizing.
GOLDEN = {
    "astronaut": "e33f4f2a3117ed59aa2cbe3cedf310d9",
    "camera": "a748d2c734ee94171c5fc6fe9ca92fd7",
    "cat": "b379d88af3ac11185cfeac8e11ddd103",
    "coffee": "3e21f5c4c6bb10f552788fde4d552645",
    "flower": "6ef45277de2d36986d5e176da2528266",
    "galaxies": "f5ed40770067aba836b9b0cada937ece",
    "rocket": "9bb03413b3d708bbe7324b8d29f8c2af",
    "temple": "1bcb35a9645b8894c4473b35c6700db8",
}


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_moves_every_pixel_to_its_place(orientation: int, kind: str) -> None:
    data = oriented(Image.fromarray(PLAIN), kind, orientation, **LOSSLESS[kind])

    np.testing.assert_array_equal(decode(data), UPRIGHT[orientation](PLAIN))


@pytest.mark.parametrize("kind", ["JPEG", "WebP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_a_lossy_picture_turns_the_decoded_pixels(orientation: int, kind: str) -> None:
    upright = decode(encoded(Image.fromarray(PLAIN), kind))

    turned = decode(oriented(Image.fromarray(PLAIN), kind, orientation))

    np.testing.assert_array_equal(turned, UPRIGHT[orientation](upright))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    np.testing.assert_array_equal(decode(oriented(Image.fromarray(PLAIN), "PNG", orientation)), PLAIN)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0" * 40])
def test_a_damaged_exif_block_is_ignored(exif: bytes) -> None:
    data = encoded(Image.fromarray(PLAIN), "WebP", exif=exif, **LOSSLESS["WebP"])

    np.testing.assert_array_equal(decode(data), PLAIN)


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)

    pixels = decode(encoded(Image.fromarray(grey), "PNG"))

    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, axis=2))


def test_a_palette_is_looked_up() -> None:
    image = Image.fromarray(PLAIN).quantize(4)

    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_grey_with_alpha_is_composited_on_white() -> None:
    grey, alpha = noise(9, 14, 2).transpose(2, 0, 1)
    data = encoded(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), "PNG")
    expected = (grey.astype(float) * alpha + 255.0 * (255 - alpha)) / 255

    pixels = decode(data)

    assert np.abs(pixels - expected[:, :, None]).max() <= 1


@pytest.mark.parametrize("kind", LOSSLESS)
def test_alpha_is_composited_on_white(kind: str) -> None:
    rgba = noise(9, 14, 4)
    colour, alpha = rgba[:, :, :3].astype(float), rgba[:, :, 3:].astype(float)

    pixels = decode(encoded(Image.fromarray(rgba), kind, **LOSSLESS[kind]))

    assert np.abs(pixels - (colour * alpha + 255 * (255 - alpha)) / 255).max() <= 1


def test_opaque_pixels_stay_and_transparent_pixels_are_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)

    assert decode(encoded(Image.fromarray(rgba), "PNG")).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_one_palette_entry_that_is_transparent() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([9, 9, 9] + [0] * 765)

    assert decode(encoded(image, "PNG", transparency=0))[0, 0].tolist() == [255, 255, 255]


def test_every_palette_entry_has_its_own_alpha() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])

    pixels = decode(encoded(image, "PNG", transparency=bytes([255, 0, 51])))

    # 51 / 255 is one fifth.
    np.testing.assert_array_equal(pixels, [[[10, 20, 30], [255, 255, 255], [218, 220, 222]]])


def test_one_bit_pictures() -> None:
    data = png(8, 1, depth=1, colour=0, rows=bytes([0, 0b10110000]))

    assert decode(data)[0, :, 1].tolist() == [255, 0, 255, 255, 0, 0, 0, 0]


def test_sixteen_bit_grey_keeps_the_high_byte() -> None:
    deep = np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16)

    assert decode(encoded(Image.fromarray(deep), "PNG"))[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


@pytest.mark.parametrize(
    ("colour", "samples", "expected"),
    [
        (2, [0x1234, 0x80FF, 0xFF00], [0x12, 0x80, 0xFF]),
        (4, [0x4000, 0xFFFF], [0x40] * 3),
        (4, [0x4000, 0x0000], [255] * 3),
        (6, [0x4000, 0x8000, 0xC000, 0xFFFF], [0x40, 0x80, 0xC0]),
    ],
)
def test_sixteen_bit_colours_keep_the_high_byte(colour: int, samples: list[int], expected: list[int]) -> None:
    rows = b"\0" + struct.pack(f">{len(samples)}H", *samples)

    assert decode(png(1, 1, depth=16, colour=colour, rows=rows)).ravel().tolist() == expected


def test_one_colour_that_is_transparent() -> None:
    marked = png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))

    pixels = decode(png(2, 1, depth=8, colour=2, rows=bytes([0, 1, 2, 3, 4, 5, 6]), before=marked))

    assert pixels.tolist() == [[[255, 255, 255], [4, 5, 6]]]


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (0, 255, 255, 0), (30, 60, 90, 0), (200, 100, 0, 50), (0, 0, 0, 255)])
def test_cmyk_follows_its_inks(ink: tuple[int, int, int, int]) -> None:
    data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100)

    # Adobe's marker says that the inks are stored inverted.
    assert b"\xff\xee\x00\x0eAdobe" in data
    cyan_magenta_yellow, black = np.array(ink[:3], float), ink[3]
    assert np.abs(decode(data)[8, 8] - (255 - cyan_magenta_yellow) * (255 - black) / 255).max() <= 2


def test_ycck_is_cmyk_in_other_coordinates() -> None:
    luma, blue, red, black = 150, 110, 160, 220
    data = bytearray(encoded(Image.new("CMYK", (16, 16), (255 - luma, 255 - blue, 255 - red, 255 - black)), "JPEG"))
    data[data.index(b"Adobe") + 11] = 2

    # ITU-T T.872: transform 2 of Adobe's marker; YCbCr gives the inks, while black is stored inverted as in CMYK.
    inks = np.array(
        [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ]
    )
    assert np.abs(decode(bytes(data))[8, 8] - (255 - inks) * black / 255).max() <= 3


@pytest.mark.parametrize("kind", LOSSLESS)
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    later = [Image.fromarray(PLAIN[::-1]), Image.fromarray(255 - PLAIN)]

    data = encoded(Image.fromarray(PLAIN), kind, save_all=True, append_images=later, **LOSSLESS[kind])

    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    np.testing.assert_array_equal(decode(data), PLAIN)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 300), (300, 1), (2, 3), (1, 16383)])
@pytest.mark.parametrize("spec", [DEFAULT, InputSpec(size=32, crop_fraction=1.0, interpolation="bilinear")])
def test_the_smallest_and_narrowest_pictures(size: tuple[int, int], spec: InputSpec) -> None:
    data = encoded(Image.new("RGB", size, (12, 34, 56)), "PNG")

    pixels = load(data, spec)

    assert decode(data).shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(pixels, np.full((spec.size, spec.size, 3), (12, 34, 56)))


@pytest.mark.parametrize("photo", GOLDEN)
def test_the_photographs_pixels_have_not_changed(photo: str) -> None:
    data = (PHOTOS / f"{photo}.jpg").read_bytes()

    pixels = load(data, DEFAULT, plain=True)

    np.testing.assert_array_equal(pixels, fit(decode(data, plain=True), DEFAULT, plain=True))
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:32] == GOLDEN[photo]
