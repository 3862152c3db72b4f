"""Figures of a parity record, compared with independent formulas and with scipy."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from export.parity.metrics import compare
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


def test_accuracy_and_the_worst_class() -> None:
    right, right_variant = REFERENCE.argmax(1) == LABELS, VARIANT.argmax(1) == LABELS
    drops = {
        int(label): float(right[label == LABELS].mean() - right_variant[label == LABELS].mean())
        for label in np.unique(LABELS)
    }
    top5 = [label in np.argsort(row)[-5:] for row, label in zip(VARIANT, LABELS, strict=True)]

    figures = compare(REFERENCE, VARIANT, LABELS)
    accuracy, worst = figures["accuracy"], figures["worst_class_drop"]

    assert accuracy["reference"]["value"] == right.mean()
    assert accuracy["variant"]["value"] == right_variant.mean()
    assert accuracy["difference"] == pytest.approx(right_variant.mean() - right.mean())
    assert accuracy["ratio"] == pytest.approx(right_variant.mean() / right.mean())
    assert accuracy["mcnemar_p"] == mcnemar_p(int((right & ~right_variant).sum()), int((~right & right_variant).sum()))
    assert figures["top5_accuracy"]["variant"]["value"] == np.mean(top5)
    assert worst["drop"] == pytest.approx(max(drops.values()))
    assert worst["drop"] == pytest.approx(drops[worst["class_index"]])
    assert worst["images"] == (worst["class_index"] == LABELS).sum()


def test_figures_by_hand() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 3.0]], np.float32)
    variant = np.array([[2.0, 0.0], [2.0, 0.0], [1.0, 0.5], [0.0, 3.0]], np.float32)

    figures = compare(reference, variant, np.array([0, 1, 0, 0]))

    assert figures["top1_agreement"]["value"] == 0.75
    assert figures["max_abs_logit_difference"] == 2.0
    assert figures["accuracy"]["reference"]["value"] == 0.75
    assert figures["accuracy"]["variant"]["value"] == 0.5
    assert figures["worst_class_drop"] == {"class_index": 1, "images": 1, "reference": 1.0, "variant": 0.0, "drop": 1.0}


def test_a_constant_answer_is_not_right_everywhere() -> None:
    figures = compare(REFERENCE, np.zeros_like(REFERENCE), LABELS)

    assert figures["accuracy"]["variant"]["value"] == (LABELS == 0).mean()
    assert figures["top5_accuracy"]["variant"]["value"] == (LABELS < 5).mean()
    assert figures["logit_correlation"] == 0.0


def test_the_reference_agrees_with_itself() -> None:
    figures = compare(REFERENCE, REFERENCE.copy(), LABELS)

    assert figures["top1_agreement"]["value"] == figures["top5_overlap"] == figures["accuracy"]["ratio"] == 1.0
    assert figures["mean_kl"] == figures["max_abs_logit_difference"] == figures["nan_or_inf"] == 0
    assert figures["logit_correlation"] == pytest.approx(1.0)
    assert figures["worst_class_drop"]["drop"] == 0.0


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

    assert (figures["decided_images"], figures["top5_overlap"], figures["accuracy"]["ratio"]) == (5, 1.0, 1.0)


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
