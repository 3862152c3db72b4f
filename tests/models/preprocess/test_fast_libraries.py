"""Compare the fast libraries with Pillow: the same decoding, resizing within two grey levels, the same errors."""

import io
from typing import Any

import cykooz_resizer
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import models.preprocess.decode
import models.preprocess.resample
from models.preprocess.decode import decode
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit, load
from models.spec import InputSpec
from tests.samples import encoded, noise, oriented
from tests.servers import PHOTOS

SPEC = InputSpec(size=224, crop_fraction=0.875)
PICTURES = sorted(PHOTOS.glob("*.jpg"))
SMALL = {kind: encoded(Image.open(PHOTOS / "cat.jpg").resize((48, 36)), kind) for kind in ("JPEG", "PNG", "WebP")}
ENCODINGS = st.fixed_dictionaries(
    {
        "quality": st.integers(1, 100),
        "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
        "progressive": st.booleans(),
        "optimize": st.booleans(),
        "restart_marker_rows": st.integers(0, 2),
    }
)


def blobs(width: int, height: int, seed: int) -> Pixels:
    """Return random colours in soft patches: smooth and sharp areas, and extremes that overshoot."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.LANCZOS))


def test_both_libraries_are_installed_and_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.preprocess.decode._turbo is simplejpeg
    assert models.preprocess.resample._simd is cykooz_resizer
    data = (PHOTOS / "cat.jpg").read_bytes()
    fast = load(data, SPEC)

    # Without the libraries, the same call uses Pillow.
    monkeypatch.setattr(models.preprocess.decode, "_turbo", None)
    monkeypatch.setattr(models.preprocess.resample, "_simd", None)

    assert not np.array_equal(load(data, SPEC), fast)
    np.testing.assert_array_equal(load(data, SPEC), load(data, SPEC, plain=True))


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    orientation=st.integers(1, 8),
    options=ENCODINGS,
    keep_rgb=st.booleans(),
)
def test_a_jpeg_decodes_to_the_same_pixels(
    width: int, height: int, mode: str, orientation: int, options: dict[str, Any], keep_rgb: bool
) -> None:
    if mode == "RGB" and keep_rgb:
        options = options | {"keep_rgb": True, "subsampling": "4:4:4"}
    data = oriented(Image.fromarray(blobs(width, height, 3)).convert(mode), "JPEG", orientation, **options)

    np.testing.assert_array_equal(decode(data), decode(data, plain=True))


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.integers(1, 96),
    crop_fraction=st.floats(0.5, 1),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    sharp=st.booleans(),
)
def test_any_picture_is_resized_within_two_roundings(
    width: int, height: int, size: int, crop_fraction: float, interpolation: str, sharp: bool
) -> None:
    spec = InputSpec(size=size, crop_fraction=crop_fraction, interpolation=interpolation)  # type: ignore[arg-type]
    picture = noise(height, width) if sharp else blobs(width, height, 5)

    difference = np.abs(fit(picture, spec).astype(int) - fit(picture, spec, plain=True))

    # Two roundings of one level each can add up in one sample. The number of differences depends on the ratio: at
    # simple ratios, such as 4:3, many samples lie halfway between two levels.
    assert difference.max() <= 2


def test_a_picture_of_several_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(300, 200)
    whole = fit(picture, SPEC)

    monkeypatch.setattr(models.preprocess.resample, "_STRIP_PIXELS", 200 * 7)

    np.testing.assert_array_equal(fit(picture, SPEC), whole)


@pytest.mark.parametrize("photo", PICTURES, ids=lambda path: path.stem)
def test_a_photograph_keeps_its_pixels(photo: Any) -> None:
    data = photo.read_bytes()

    difference = np.abs(load(data, SPEC).astype(int) - load(data, SPEC, plain=True))

    assert difference.max() <= 2
    assert (difference > 1).mean() <= 1e-5
    assert difference.mean() <= 0.008


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), mode=st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK", "LA"])
)
@pytest.mark.parametrize("plain", [False, True])
def test_any_size_and_mode_fits(plain: bool, width: int, height: int, mode: str) -> None:
    data = encoded(Image.new(mode, (width, height)), "JPEG" if mode == "CMYK" else "PNG")

    pixels = fit(decode(data, plain=plain), SPEC, plain=plain)

    assert (pixels.dtype, pixels.shape) == (np.uint8, (224, 224, 3))
    np.testing.assert_array_equal(load(data, SPEC, plain=plain), pixels)


@pytest.mark.parametrize("kind", SMALL)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_mutated_picture_gives_the_same_pixels_or_error(kind: str, data: st.DataObject) -> None:
    picture = bytearray(SMALL[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        picture[data.draw(st.integers(0, len(picture) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(picture[: data.draw(st.integers(len(picture) // 2, len(picture)))])

    # Any other exception than an ImageError would end the test.
    np.testing.assert_array_equal(_outcome(cut, plain=False), _outcome(cut, plain=True))


def _outcome(data: bytes, *, plain: bool) -> Any:
    try:
        return decode(data, plain=plain)
    except ImageError as error:
        return str(error)


def test_a_file_that_the_fast_decoder_warns_of_is_left_to_pillow() -> None:
    # Surplus bytes before the end: libjpeg warns and continues.
    whole = encoded(Image.fromarray(blobs(64, 48, 1)), "JPEG")
    data = whole[:-2] + bytes(20) + whole[-2:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(data)

    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))
