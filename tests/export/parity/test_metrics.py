"""Figures of a parity record, compared with independent formulas and with scipy."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from export.parity.labelled import difference
from export.parity.metrics import UNLABELLED, compare
from models.common.statistics import mcnemar_p, rate, softmax

RNG = np.random.default_rng(3)
REFERENCE = (RNG.normal(size=(40, 8)) * 3).astype(np.float32)
VARIANT = (REFERENCE + RNG.normal(size=(40, 8)) * 0.8).astype(np.float32)
LABELS = RNG.integers(0, 8, 40)


def probabilities(row: Any, temperature: float) -> list[float]:
    exponents = [math.exp(float(value) / temperature) for value in row]
    return [each / sum(exponents) for each in exponents]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_divergence_and_decided_pictures(temperature: float) -> None:
    rows = [
        (probabilities(reference, temperature), probabilities(variant, temperature))
        for reference, variant in zip(REFERENCE, VARIANT, strict=True)
    ]
    divergences = [sum(p * math.log(p / q) for p, q in zip(*row, strict=True)) for row in rows]
    decided = [index for index, (p, _) in enumerate(rows) if sorted(p)[-1] - sorted(p)[-2] > 0.05]
    same = [index for index in decided if REFERENCE[index].argmax() == VARIANT[index].argmax()]

    figures = compare(REFERENCE, VARIANT, None, temperature=temperature)

    assert figures["mean_kl"] == pytest.approx(sum(divergences) / 40, rel=1e-6)
    assert figures["decided_images"] == len(decided)
    assert figures["decided_agreement"]["value"] == pytest.approx(len(same) / len(decided))


def test_agreement_and_differences() -> None:
    figures = compare(REFERENCE, VARIANT, None)
    differences = [abs(float(a) - float(b)) for a, b in zip(REFERENCE.ravel(), VARIANT.ravel(), strict=True)]
    best = [
        (set(np.argsort(a)[-5:].tolist()), set(np.argsort(b)[-5:].tolist()))
        for a, b in zip(REFERENCE, VARIANT, strict=True)
    ]
    centred = [matrix - matrix.mean(axis=1, keepdims=True) for matrix in (REFERENCE, VARIANT)]

    assert figures["top1_agreement"]["value"] == (REFERENCE.argmax(1) == VARIANT.argmax(1)).mean()
    assert figures["mean_abs_logit_difference"] == pytest.approx(sum(differences) / 320, rel=1e-5)
    assert figures["max_abs_logit_difference"] == pytest.approx(max(differences))
    assert figures["top5_overlap"] == pytest.approx(sum(len(a & b) for a, b in best) / 200)
    assert figures["logit_correlation"] == pytest.approx(np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1])
    assert "accuracy" not in figures


def test_accuracy_on_labelled_pictures() -> None:
    right, right_variant = REFERENCE.argmax(1) == LABELS, VARIANT.argmax(1) == LABELS
    top5 = [label in np.argsort(row)[-5:] for row, label in zip(VARIANT, LABELS, strict=True)]
    worse, better = int((right & ~right_variant).sum()), int((~right & right_variant).sum())

    figures = compare(REFERENCE, VARIANT, LABELS)
    accuracy = figures["accuracy"]

    assert accuracy["images"] == 40
    assert accuracy["reference"]["value"] == right.mean()
    assert accuracy["variant"]["value"] == right_variant.mean()
    assert accuracy["difference"]["value"] == pytest.approx(right_variant.mean() - right.mean())
    assert accuracy["difference"]["low"] < accuracy["difference"]["value"] < accuracy["difference"]["high"]
    assert (accuracy["only_reference"], accuracy["only_variant"]) == (worse, better)
    assert accuracy["mcnemar_p"] == mcnemar_p(worse, better)
    assert figures["top5_accuracy"]["variant"]["value"] == np.mean(top5)


def test_only_labelled_images_have_an_accuracy() -> None:
    some = np.where(np.arange(40) % 2, LABELS, UNLABELLED)

    assert (
        compare(REFERENCE, VARIANT, some)["accuracy"]
        == compare(REFERENCE[1::2], VARIANT[1::2], LABELS[1::2])["accuracy"]
    )
    assert "accuracy" not in compare(REFERENCE, VARIANT, np.full(40, UNLABELLED))


def test_one_dead_class_of_many_is_worse_beyond_chance() -> None:
    """120 classes of 50 pictures: the accuracy loses less than a point, and one class everything."""
    labels = np.repeat(np.arange(120), 50)
    reference = np.eye(120, dtype=np.float32)[labels] * 5
    variant = reference.copy()
    variant[:, 7] = -5

    figures = compare(reference, variant, labels)

    (worst,) = figures["classes"]["worse"]
    assert (worst["class_index"], worst["images"], worst["reference"], worst["variant"]) == (7, 50, 1.0, 0.0)
    assert worst["p"] == pytest.approx(2.0**-50)
    assert figures["classes"]["tested"] == 120
    assert figures["accuracy"]["difference"]["low"] > -0.0125


def test_a_class_of_few_pictures_cannot_be_judged() -> None:
    labels = np.repeat(np.arange(4), [3, 8, 9, 40])
    logits = np.eye(4, dtype=np.float32)[labels]

    classes = compare(logits, logits, labels)["classes"]

    # 4 / 2^9 < 0.01 < 4 / 2^8
    assert (classes["least_right"], classes["too_few"], classes["worse"]) == (9, 2, [])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_holm_rejects_as_statsmodels_would(data: st.DataObject) -> None:
    """Step down by hand: the k-th smallest p-value must not exceed alpha / (m - k)."""
    worse = data.draw(st.lists(st.integers(0, 14), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(worse)), 14)
    reference = np.eye(max(2, len(worse)), dtype=np.float32)[labels]
    variant = reference.copy()
    for label, count in enumerate(worse):
        variant[np.flatnonzero(labels == label)[:count]] = np.roll(reference[labels == label][:1], 1)
    chances = sorted((binomtest(count, count, alternative="greater").pvalue if count else 1.0) for count in worse)
    passed = [chance <= 0.01 / (len(worse) - step) for step, chance in enumerate(chances)]
    expected = passed.index(False) if False in passed else len(passed)

    assert len(compare(reference, variant, labels)["classes"]["worse"]) == expected


@pytest.mark.parametrize(("rate_of_change", "images"), [(0.02, 300), (0.05, 1000), (0.1, 3000)])
def test_the_outcomes_are_wrong_as_seldom_as_promised(rate_of_change: float, images: int) -> None:
    """A variant exactly at the margin is called proven in about 5 % of draws, and an equal one hardly ever refuted."""
    generator, margin, draws = np.random.default_rng(0), 0.01, 2000
    outcomes = {}
    for loss in (margin, 0.0):
        chances = [(rate_of_change + loss) / 2, (rate_of_change - loss) / 2, 1 - rate_of_change]
        counts = generator.multinomial(images, chances, size=draws)
        bounds = [difference(int(worse), int(better), images) for worse, better, _ in counts]
        outcomes[loss] = (
            np.mean([each["low"] > -margin for each in bounds]),
            np.mean([each["high"] < -margin for each in bounds]),
        )

    assert outcomes[margin][0] <= 0.065
    assert outcomes[0.0][1] <= 0.05


def test_figures_by_hand() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 3.0]], np.float32)
    variant = np.array([[2.0, 0.0], [2.0, 0.0], [1.0, 0.5], [0.0, 3.0]], np.float32)

    figures = compare(reference, variant, np.array([0, 1, 0, 0]))

    assert figures["top1_agreement"]["value"] == 0.75
    assert figures["max_abs_logit_difference"] == 2.0
    assert figures["accuracy"]["reference"]["value"] == 0.75
    assert figures["accuracy"]["variant"]["value"] == 0.5
    assert figures["classes"]["worse"] == []


def test_the_outputs_of_every_class() -> None:
    figures = compare(REFERENCE, VARIANT, None)["outputs"]
    own = [np.corrcoef(REFERENCE[:, each], VARIANT[:, each])[0, 1] for each in range(8)]
    shift = np.abs(VARIANT.mean(0) - REFERENCE.mean(0)) / REFERENCE.std(0)
    centred = REFERENCE - REFERENCE.mean(0)

    assert figures["lowest_correlation"]["value"] == pytest.approx(min(own), rel=1e-5)
    assert figures["lowest_correlation"]["class_index"] == int(np.argmin(own))
    assert figures["largest_shift"]["value"] == pytest.approx(shift.max(), rel=1e-4)
    assert figures["largest_shift"]["class_index"] == int(shift.argmax())
    assert figures["scale"] == pytest.approx(float((centred * VARIANT).sum() / (centred**2).sum()), rel=1e-5)
    assert (figures["exchanged"], figures["exchanges"]) == (0, [])


def test_the_spread_of_the_outputs_is_a_share_of_their_size() -> None:
    logits = np.array([[10.0, -10.0], [10.1, -10.1]], np.float32)

    assert compare(logits, logits, None)["outputs"]["spread"] == pytest.approx(0.05 / 10.05, rel=1e-3)
    assert compare(logits[:1].repeat(2, axis=0), logits, None)["outputs"]["spread"] == 0.0


def test_exchanged_classes_are_named_as_what_they_are() -> None:
    variant = VARIANT.copy()
    variant[:, [2, 5]] = VARIANT[:, [5, 2]]

    outputs = compare(REFERENCE, variant, None)["outputs"]

    assert outputs["exchanges"] == [{"class_index": 2, "is_rather": 5}, {"class_index": 5, "is_rather": 2}]


def test_classes_with_the_same_logits_are_not_exchanged() -> None:
    twins = np.concatenate([REFERENCE, REFERENCE[:, :1]], axis=1)
    noisy = (twins + np.random.default_rng(0).normal(size=twins.shape) * 0.2).astype(np.float32)

    assert compare(twins, noisy, None)["outputs"]["exchanged"] == 0


def test_crops_of_one_picture_count_as_less() -> None:
    """Copies of the same images add nothing to what the interval knows."""
    copies = [np.repeat(each, 8, axis=0) for each in (REFERENCE, VARIANT)]
    once = compare(REFERENCE, VARIANT, None)
    copied = compare(copies[0], copies[1], None, pictures=np.repeat(np.arange(40), 8))

    assert (copied["images"], copied["pictures"]) == (320, 40)
    assert copied["mean_kl"] == pytest.approx(once["mean_kl"])
    for bound in ("low", "high"):
        assert copied["top1_agreement"][bound] == pytest.approx(once["top1_agreement"][bound], abs=0.01)
        assert copied["mean_kl_interval"][bound] == pytest.approx(once["mean_kl_interval"][bound])


def test_the_bounds_are_what_resamples_of_the_pictures_give() -> None:
    """By 400 resamples of eight photographs with a generator of their own."""
    pictures, generator = np.repeat(np.arange(8), 5), np.random.default_rng(7)
    drawn = [np.concatenate([5 * number + np.arange(5) for number in generator.integers(0, 8, 8)]) for _ in range(400)]
    resampled = [compare(REFERENCE[chosen], VARIANT[chosen], None) for chosen in drawn]
    agreements = [each["decided_agreement"]["value"] for each in resampled]

    found = compare(REFERENCE, VARIANT, None, pictures=pictures)["decided_resampled"]

    assert found["lowest"] <= found["low"] < found["high"] <= found["highest"]
    assert np.quantile(agreements, 0.01) == pytest.approx(found["lowest"], abs=0.04)
    assert np.quantile(agreements, 0.99) == pytest.approx(found["highest"], abs=0.04)


def test_the_interval_over_photographs_where_all_agree() -> None:
    reference = np.tile(REFERENCE[:1], (320, 1))
    variant = reference * (1 + np.repeat(np.linspace(0.01, 0.5, 8), 40)[:, None].astype(np.float32))

    figures = compare(reference, variant, None, pictures=np.repeat(np.arange(8), 40))

    assert figures["top1_agreement"]["value"] == 1.0
    assert figures["top1_agreement"]["low"] < 0.8


def test_a_constant_answer_is_not_right_everywhere() -> None:
    figures = compare(REFERENCE, np.zeros_like(REFERENCE), LABELS)

    assert figures["accuracy"]["variant"]["value"] == (LABELS == 0).mean()
    assert figures["top5_accuracy"]["variant"]["value"] == (LABELS < 5).mean()
    assert figures["logit_correlation"] == 0.0


def test_the_reference_agrees_with_itself() -> None:
    figures = compare(REFERENCE, REFERENCE.copy(), LABELS)

    assert figures["top1_agreement"]["value"] == figures["top5_overlap"] == 1.0
    assert figures["mean_kl"] == figures["max_abs_logit_difference"] == figures["nan_or_inf"] == 0
    assert figures["logit_correlation"] == pytest.approx(1.0)
    assert figures["classes"]["worse"] == []


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_answers_are_counted_and_left_out_of_the_means(broken: float) -> None:
    variant = VARIANT.copy()
    variant[[3, 8], [0, 7]] = broken
    kept = np.delete(np.arange(40), [3, 8])

    figures = compare(REFERENCE, variant, LABELS)
    rest = compare(REFERENCE[kept], VARIANT[kept], None)

    assert (figures["nan_or_inf"], figures["images"]) == (2, 40)
    for name in ("mean_kl", "mean_abs_logit_difference", "max_abs_logit_difference", "logit_correlation"):
        assert figures[name] == pytest.approx(rest[name])
    # They count as wrong, not as absent.
    agreeing = (REFERENCE[kept].argmax(1) == VARIANT[kept].argmax(1)).sum()
    assert figures["top1_agreement"]["value"] == agreeing / 40
    assert figures["accuracy"]["variant"]["value"] == (VARIANT[kept].argmax(1) == LABELS[kept]).sum() / 40


def test_nothing_but_broken_answers() -> None:
    figures = compare(REFERENCE, np.full_like(REFERENCE, np.nan), LABELS)

    assert figures["nan_or_inf"] == 40
    assert figures["top1_agreement"]["value"] == figures["accuracy"]["variant"]["value"] == 0.0
    assert figures["mean_kl"] == figures["logit_correlation"] == 0.0


def test_a_model_with_one_class_is_always_decided() -> None:
    figures = compare(np.zeros((5, 1), np.float32), np.ones((5, 1), np.float32), np.zeros(5, np.int64))

    assert (figures["decided_images"], figures["top5_overlap"]) == (5, 1.0)


def test_softmax_of_large_logits() -> None:
    assert softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32)).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert np.isfinite(compare(REFERENCE * 1000, -REFERENCE * 1000, None)["mean_kl"])


@settings(max_examples=100, deadline=None)
@given(trials=st.integers(1, 10_000), data=st.data())
def test_the_interval_is_scipys_wilson_interval(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))

    interval = rate(successes, trials)
    share = successes / trials
    expected = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")

    assert interval["value"] == share
    assert 0 <= interval["low"] <= share + 1e-12
    assert share - 1e-12 <= interval["high"] <= 1
    assert (interval["low"], interval["high"]) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-12)


def test_no_trials_say_nothing() -> None:
    assert rate(0, 0) == {"value": 0.0, "low": 0.0, "high": 1.0}


@settings(max_examples=100, deadline=None)
@given(one=st.integers(0, 300), other=st.integers(0, 300))
def test_mcnemar_is_scipys_two_sided_binomial_test(one: int, other: int) -> None:
    expected = binomtest(one, one + other, p=0.5, alternative="two-sided").pvalue if one + other else 1.0

    assert mcnemar_p(one, other) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(one, other) == mcnemar_p(other, one)


def test_mcnemar_with_many_pictures() -> None:
    assert mcnemar_p(3000, 3000) == 1.0
    assert mcnemar_p(3000, 0) < 1e-300


def test_statistics_against_known_values() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(10, 0) == pytest.approx(2 / 2**10)
    interval = rate(81, 263)
    assert (interval["low"], interval["high"]) == pytest.approx((0.2553, 0.3662), abs=1e-3)
