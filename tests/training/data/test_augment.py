import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.common.errors import HalftoneError
from models.preprocess.transform import fit
from models.spec import InputSpec
from tests.training.samples import picture
from training.config.augment import AugmentConfig
from training.data.augment import EvaluationView, build_augment, random_box

PLAIN = AugmentConfig(crop_scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0)
EVERYTHING = AugmentConfig(
    policy="randaugment", vertical_flip=0.5, rotate=20, shift=0.1, zoom=0.2, shear=10, perspective=0.1, hue=0.1,
    grey=0.3, blur=0.5, noise=0.5, erase=0.5, iso_noise=0.5,
)  # fmt: skip
SIDES = st.one_of(st.just(1), st.integers(1, 80), st.just(700))

CONFIGS = {
    "default": AugmentConfig(),
    "everything": EVERYTHING,
    "one of each": replace(EVERYTHING, one_of=("geometry", "colour", "damage"), geometry_prob=0.5, colour_prob=0.5),
    "imagenet": replace(PLAIN, policy="autoaugment-imagenet", erase=0.5),
    "cifar10": replace(PLAIN, policy="autoaugment-cifar10", crop_scale=(0.1, 0.9)),
    "svhn": replace(PLAIN, policy="autoaugment-svhn", flip=0.5),
    "strongest": replace(PLAIN, policy="randaugment", policy_magnitude=30, policy_ops=4),
}
SPEC = InputSpec(size=24, mean=(0.5, 0.4, 0.3))
VIEWS = {name: build_augment(config, SPEC) for name, config in CONFIGS.items()}


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(VIEWS)), width=SIDES, height=SIDES, seed=st.integers(0, 2**63 - 1))
def test_any_picture_becomes_the_network_s_input_and_the_seed_decides_how(name, width, height, seed):
    image = picture(3, width=width, height=height)
    untouched = image.copy()
    pixels = VIEWS[name](image, seed)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (24, 24, 3)
    assert np.array_equal(VIEWS[name](image, seed), pixels)
    assert np.array_equal(image, untouched)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(16, 48), seed=st.integers(0, 999))
def test_inputs_of_any_size(size, seed):
    view = build_augment(EVERYTHING, InputSpec(size=size))
    assert view(picture(seed, width=31, height=17), seed).shape == (size, size, 3)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_seeds_differ_and_no_global_random_state_is_used(name):
    image = picture(1, width=40, height=30)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1]
    views = [VIEWS[name](image, seed) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert len({view.tobytes() for view in views}) > 4


def test_a_view_is_the_same_after_a_trip_to_another_process():
    view = pickle.loads(pickle.dumps(VIEWS["everything"]))
    image = picture(2, width=50, height=50)
    assert np.array_equal(view(image, 7), VIEWS["everything"](image, 7))


def test_all_off_is_the_evaluation_s_view():
    image = picture(4, width=61, height=35)
    assert np.array_equal(build_augment(PLAIN, SPEC)(image, 9), fit(image, SPEC))
    assert np.array_equal(EvaluationView(SPEC)(image, 9), fit(image, SPEC))


def test_flips_have_the_requested_frequency():
    image = picture(5, width=24, height=24)
    spec = InputSpec(size=24, crop_fraction=1.0)
    view = build_augment(replace(PLAIN, flip=0.25), spec)
    seen = [view(image, seed) for seed in range(400)]
    flipped = sum(np.array_equal(each, image[:, ::-1]) for each in seen)
    assert sum(np.array_equal(each, image) for each in seen) + flipped == 400
    assert 60 < flipped < 140
    upside_down = build_augment(replace(PLAIN, vertical_flip=1.0), spec)(image, 0)
    assert np.array_equal(upside_down, image[::-1])


@pytest.mark.parametrize(
    "change",
    [
        {"rotate": 30.0}, {"shift": 0.3}, {"zoom": 0.5}, {"shear": 20.0}, {"perspective": 0.2}, {"brightness": 0.5},
        {"contrast": 0.5}, {"saturation": 0.9}, {"hue": 0.4}, {"grey": 1.0}, {"blur": 1.0}, {"noise": 1.0},
        {"iso_noise": 1.0}, {"erase": 1.0}, {"policy": "randaugment"}, {"crop_scale": (0.2, 0.5)},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_has_an_effect(change):
    image = picture(6, width=40, height=40)
    view = build_augment(replace(PLAIN, **change), SPEC)
    assert any(not np.array_equal(view(image, seed), fit(image, SPEC)) for seed in range(5))


def test_grey_pictures_have_equal_channels():
    pixels = build_augment(replace(PLAIN, grey=1.0), SPEC)(picture(7), 0)
    assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_the_empty_corners_of_a_turned_picture_have_the_mean_colour():
    white = np.full((50, 50, 3), 255, np.uint8)
    pixels = build_augment(replace(PLAIN, rotate=45.0), SPEC)(white, 3)
    assert pixels[0, 0].tolist() == [128, 102, 76]


def test_steps_draw_independent_numbers():
    # With one seed shared by all steps, blur and noise would occur only together.
    config = replace(PLAIN, blur=0.5, noise=0.5, noise_std=(0.3, 0.3))
    view = build_augment(config, SPEC)
    half = np.zeros((24, 24, 3), np.uint8)
    half[:, 12:] = 255
    spec_view = fit(half, SPEC)
    kinds = set()
    for seed in range(60):
        pixels = view(half, seed)
        noisy = len(np.unique(pixels)) > 60
        kinds.add("plain" if np.array_equal(pixels, spec_view) else "noisy" if noisy else "blurred")
    assert kinds == {"plain", "noisy", "blurred"}


@pytest.mark.parametrize(
    "change", [{"rotate": 45.0, "geometry_prob": 0.25}, {"brightness": 0.9, "colour_prob": 0.25}], ids=str
)
def test_geometry_and_colour_have_a_probability(change):
    image = picture(9, width=24, height=24)
    view = build_augment(replace(PLAIN, **change), SPEC)
    changed = sum(not np.array_equal(view(image, seed), fit(image, SPEC)) for seed in range(400))
    assert 60 < changed < 140


def test_one_step_at_most_of_a_group_that_acts_alone():
    blurred_or_noisy = replace(PLAIN, blur=0.4, blur_sigma=(3.0, 3.0), noise=0.4, noise_std=(0.3, 0.3))
    half = np.zeros((24, 24, 3), np.uint8)
    half[:, 12:] = 255
    counts = {}
    for name, groups in (("together", ()), ("alone", ("damage",))):
        view = build_augment(replace(blurred_or_noisy, one_of=groups), InputSpec(size=24, crop_fraction=1.0))
        seen = [view(half, seed) for seed in range(200)]
        plain = sum(np.array_equal(each, half) for each in seen)
        # Blurred alone, every row is the same.
        blurred = sum((each == each[:1]).all() and not np.array_equal(each, half) for each in seen)
        counts[name] = plain, blurred, 200 - plain - blurred
    # Of independent steps, 36 % of pictures stay plain and 24 % are only blurred; alone, 20 % and 40 %.
    assert counts["together"] == pytest.approx((72, 48, 80), abs=25)
    assert counts["alone"] == pytest.approx((40, 80, 80), abs=25)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.4])
def test_rectangles_of_every_allowed_area_are_erased(share):
    view = build_augment(replace(PLAIN, erase=1.0, erase_area=(share, share)), InputSpec(size=64))
    black = np.zeros((64, 64, 3), np.uint8)
    erased = [view(black, seed).any(axis=2).mean() for seed in range(40)]
    assert np.mean(erased) == pytest.approx(share, rel=0.35)


@settings(max_examples=200, deadline=None)
@given(width=st.integers(1, 5000), height=st.integers(1, 5000), seed=st.integers(0, 10**6))
def test_random_boxes_lie_inside_and_have_an_area(width, height, seed):
    draw = np.random.default_rng(seed)
    left, top, right, bottom = random_box(width, height, (0.08, 1.0), (3 / 4, 4 / 3), draw)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_random_boxes_keep_to_scale_and_ratio():
    draw = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = random_box(400, 300, (0.2, 0.5), (0.8, 1.25), draw)
        assert 0.2 <= (right - left) * (bottom - top) / 120_000 <= 0.5 + 1e-9
        assert 0.8 - 1e-9 <= (right - left) / (bottom - top) <= 1.25 + 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": 1.5}, "--augment.flip must lie between 0 and 1"),
        ({"rotate": -1.0}, "--augment.rotate"),
        ({"policy_magnitude": 31}, "--augment.policy-magnitude must lie between 0 and 30"),
        ({"crop_scale": (0.0, 1.0)}, "--augment.crop-scale"),
        ({"crop_scale": (0.9, 0.5)}, "two ascending numbers"),
        ({"noise_std": (0.1, 1.1)}, "--augment.noise-std"),
        ({"hue": 0.6}, "--augment.hue must lie between 0 and 0.5"),
        ({"geometry_prob": 1.5}, "--augment.geometry-prob must lie between 0 and 1"),
        ({"one_of": ("damage", "damage")}, "--augment.one-of must name each group once"),
    ],
)
def test_values_outside_their_range(change, message):
    with pytest.raises(HalftoneError, match=message):
        AugmentConfig(**change)


def test_flips_and_crops_alone_import_neither_albumentations_nor_torchvision():
    code = (
        "import sys; from models.spec import InputSpec; "
        "from training.config.augment import AugmentConfig; from training.data.augment import build_augment\n"
        "build_augment(AugmentConfig(brightness=0, contrast=0, saturation=0), InputSpec(size=8))\n"
        "assert not {'albumentations', 'torchvision', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
