"""Drift: no alarm on pictures like those of the proof, an alarm on others, and a profile that is read as written."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from models.bundle.bundle import WEIGHTS
from models.bundle.drift import CHANCE, DRIFT, MEASURES, Profile, cells, read_profile, write_profile
from models.common.binomial import exact_interval
from models.common.errors import HalftoneError
from models.common.statistics import chi_square_tail, homogeneity_p, ks_distance, ks_p
from tests.samples import small_bundle

CLASSES = 10
SIDE = 2
PATTERN = np.array([1, -1, -1, 1]).reshape(1, SIDE, SIDE, 1).repeat(3, axis=3)
Pixels = npt.NDArray[np.uint8]


def same(pixels: Pixels) -> Pixels:
    return pixels


def answered(count: int, rng: np.random.Generator, change: Callable[[Pixels], Pixels] = same) -> Profile:
    """Profile of drawn pictures of unequal classes, whose answers are mostly certain."""
    brightness, contrast = rng.integers(40, 200, (count, 1, 1, 1)), rng.integers(10, 40, (count, 1, 1, 1))
    pixels = (brightness + contrast * PATTERN).astype(np.uint8)
    logits = rng.normal(0, 1, (count, CLASSES))
    logits[np.arange(count), np.minimum(rng.geometric(0.3, count) - 1, CLASSES - 1)] += rng.exponential(9, count)
    return Profile.of(cells(change(pixels), logits, 1.5), CLASSES)


@pytest.mark.parametrize(("proof", "window"), [(40, 500), (200, 500), (2000, 500)])
def test_like_pictures_raise_no_more_alarms_than_promised(proof: int, window: int) -> None:
    rng = np.random.default_rng(proof)
    looks, alarms, low = 400, 0, 0
    for _ in range(looks):
        results = answered(proof, rng).compare(answered(window, rng)).values()
        alarms += any(each.differs for each in results)
        low += any(each.p < 0.05 for each in results)

    # The level that can be seen in so few looks, and the one that is promised.
    assert exact_interval(low, looks)[0] <= 0.05
    assert exact_interval(alarms, looks)[0] <= CHANCE


def test_darker_pictures_raise_an_alarm_even_after_a_small_proof() -> None:
    rng = np.random.default_rng(0)
    for proof in (40, 200):
        found = answered(proof, rng).compare(answered(500, rng, lambda pixels: pixels // 4))
        assert {measure for measure, each in found.items() if each.differs} >= {"brightness", "contrast"}
        assert not found["class"].differs


def test_other_classes_and_doubtful_answers_raise_an_alarm() -> None:
    rng = np.random.default_rng(0)
    pixels = np.zeros((500, SIDE, SIDE, 3), np.uint8)
    sure, doubtful = np.zeros((2, 500, CLASSES))
    sure[np.arange(500), rng.integers(0, CLASSES, 500)] = 9
    doubtful[:, 3] = 1
    found = Profile.of(cells(pixels, sure, 1.0), CLASSES).compare(Profile.of(cells(pixels, doubtful, 1.0), CLASSES))

    assert {measure for measure, each in found.items() if each.differs} == {"class", "confidence"}


def test_many_pictures_make_a_small_difference_significant_and_no_alarm() -> None:
    rng = np.random.default_rng(0)
    found = answered(20_000, rng).compare(answered(20_000, rng, lambda pixels: np.minimum(pixels, 249) + 6))

    assert found["brightness"].p < CHANCE
    assert not any(each.differs for each in found.values())


@pytest.mark.parametrize(
    ("value", "freedom"), [(0.0, 3), (0.2, 2), (3.84, 1), (10, 5), (60, 51), (1200, 999), (5000, 8)]
)
def test_the_tail_of_chi_square_is_scipys(value: float, freedom: int) -> None:
    assert chi_square_tail(value, freedom) == pytest.approx(float(stats.chi2.sf(value, freedom)), rel=1e-9)


def test_the_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 20, 400), rng.integers(0, 20, 500)
    counts = [np.bincount(each, minlength=20) for each in (first, second)]
    kolmogorov = stats.ks_2samp(first, second, method="asymp")

    assert ks_distance(counts[0], counts[1]) == pytest.approx(kolmogorov.statistic)
    assert ks_p(0.2, 300, 500) >= stats.kstwobign.sf(0.2 * math.sqrt(300 * 500 / 800))
    assert homogeneity_p(counts[0], counts[1]) == pytest.approx(
        stats.chi2_contingency(np.stack(counts), correction=False).pvalue
    )


def test_rare_classes_are_counted_together_and_too_few_pictures_say_nothing() -> None:
    first = np.array([100, 100] + [1] * 40)
    second = np.array([100, 100, 0] + [1] * 39)

    assert homogeneity_p(first, second) > 0.9
    assert homogeneity_p(np.array([1, 1]), np.array([2, 0])) == 1
    assert homogeneity_p(np.array([50, 1, 1]), np.array([50, 1, 1])) == 1


def test_it_is_read_as_it_was_written_and_counts_for_these_weights_only(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    assert read_profile(bundle) is None
    classes = len(bundle.manifest.labels)
    logits = np.random.default_rng(0).normal(0, 4, (50, classes))
    profile = Profile.of(cells(np.zeros((50, SIDE, SIDE, 3), np.uint8), logits, 1.0), classes)

    write_profile(bundle, profile, made_by="`make profile`")

    found = read_profile(bundle)
    assert found is not None
    assert found.pictures == 50
    assert all((found.counts[measure] == profile.counts[measure]).all() for measure in MEASURES)
    bundle.write(WEIGHTS, b"others", made_by="`make weights`")
    assert read_profile(bundle) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"counts": {}},
        {"class": [1, 2, 3, 4]},
        {"brightness": [1] * 31},
        {"contrast": [-1, 51, *[0] * 30]},
        {"confidence": [0.5] * 20},
    ],
)
def test_nothing_else_is_read(tmp_path: Path, change: dict[str, object]) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    classes = len(bundle.manifest.labels)
    whole = Profile.of(cells(np.zeros((50, SIDE, SIDE, 3), np.uint8), np.zeros((50, classes)), 1.0), classes)
    values = json.loads(whole.to_json())
    for name, value in change.items():
        (values["counts"] if name in MEASURES else values)[name] = value
    bundle.write(DRIFT, json.dumps(values).encode(), made_by="`make it`", made_from=[WEIGHTS])

    with pytest.raises(HalftoneError, match=r"drift.json can't be used: not a profile of pictures .* --model tiny`"):
        read_profile(bundle)
