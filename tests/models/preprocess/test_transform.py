"""Compare the evaluation transform with timm's, for any specification and any shape of image."""

from collections.abc import Callable

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.catalog import architecture
from models.graph import Normalise
from models.preprocess.resample import resample, resampling_weights
from models.preprocess.transform import fit, load
from models.spec import InputSpec, Interpolation
from tests.samples import noise
from tests.servers import PHOTOS

PICTURES = sorted(PHOTOS.glob("*.jpg"))


def timm_transform(
    spec: InputSpec, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[Image.Image], torch.Tensor]:
    return timm.data.create_transform(
        (3, spec.size, spec.size),
        interpolation=spec.interpolation,
        crop_pct=spec.crop_fraction,
        mean=mean,
        std=std,
    )


@pytest.mark.parametrize(
    ("size", "crop_fraction"), [(224, 0.875), (224, 0.9), (224, 0.95), (224, 1.0), (256, 0.95), (288, 0.95)]
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("plain", [False, True])
def test_pixels_differ_by_one_grey_level_at_most(
    size: int, crop_fraction: float, interpolation: str, plain: bool
) -> None:
    spec = InputSpec(size=size, crop_fraction=crop_fraction, interpolation=interpolation)  # type: ignore[arg-type]
    transform = timm_transform(spec, mean=(0, 0, 0), std=(1, 1, 1))

    for photo in PICTURES:
        theirs = (transform(Image.open(photo).convert("RGB")) * 255).round().permute(1, 2, 0).numpy()
        difference = np.abs(load(photo.read_bytes(), spec, plain=plain) - theirs)
        # Over eight photographs and ten specifications, the largest mean is 0.006.
        assert difference.max() <= 1
        assert difference.mean() <= 0.01


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.integers(1, 96),
    crop_fraction=st.floats(0.5, 1),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_any_shape_is_cropped_where_timm_crops(
    height: int, width: int, size: int, crop_fraction: float, interpolation: str
) -> None:
    spec = InputSpec(size=size, crop_fraction=crop_fraction, interpolation=interpolation)  # type: ignore[arg-type]
    # A smooth image, so that only a crop at another position makes a large difference.
    ramp = np.add.outer(np.linspace(0, 127, height), np.linspace(0, 127, width)).astype(np.uint8)
    picture = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2)

    transform = timm_transform(spec, mean=(0, 0, 0), std=(1, 1, 1))
    theirs = (transform(Image.fromarray(picture)) * 255).round().permute(1, 2, 0)

    difference = np.abs(fit(picture, spec).astype(int) - theirs.numpy())
    assert difference.max() <= 1 or difference.mean() <= 0.6


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "vit_h14"])
def test_normalisation_is_timms(name: str) -> None:
    spec = architecture(name).input
    picture = noise(spec.size, spec.size)
    expected = timm.data.create_transform(
        (3, spec.size, spec.size), crop_pct=1.0, interpolation=spec.interpolation, mean=spec.mean, std=spec.std
    )(Image.fromarray(picture))

    planes = Normalise(spec)(torch.from_numpy(picture)[None])[0]

    torch.testing.assert_close(planes, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "box"), [(20, (0, 0, 48, 48)), (31, (5.25, 7.5, 41, 43.25)), (60, (0, 0, 48, 48))])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_products_with_the_weights_resample_as_pillow_does(
    size: int, box: tuple[float, float, float, float], interpolation: Interpolation
) -> None:
    pixels = noise(48, 48)

    rows = resampling_weights(48, size, (box[1], box[3]), interpolation)
    columns = resampling_weights(48, size, (box[0], box[2]), interpolation)
    resampled = np.einsum("ih,jw,hwc->ijc", rows, columns, pixels.astype(np.float64), optimize=True)

    # Pillow rounds to 8 bits after each of the two directions, and cuts off what is beyond them.
    difference = np.abs(resampled.clip(0, 255) - resample(pixels, size, box, interpolation, plain=True))
    assert np.quantile(difference, 0.95) <= 1.5


def test_beyond_its_ends_a_line_goes_on_with_its_outermost_samples() -> None:
    line = np.array([10.0, 20, 30, 40])
    beyond = np.array([10.0, 10, 20, 30, 40, 40])

    weights = resampling_weights(4, 3, (-1.0, 5.0), "bilinear")

    assert weights @ line == pytest.approx(resampling_weights(6, 3, (0.0, 6.0), "bilinear") @ beyond, abs=1e-4)
