"""Thresholds, prediction sets and novelty: against scipy, and what they promise against what then happens."""

import numpy as np
import numpy.typing as npt
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from models.common.binomial import binomial_cdf, exact_interval
from models.common.conformal import (
    class_scores,
    highest_coverage,
    quantile,
    quantiles,
    set_size,
    set_sizes,
    true_scores,
)
from models.common.novelty import auroc, familiarity, novelty_threshold
from models.common.selective import fewest, select

COUNTS = st.integers(1, 20_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=40, deadline=None)
@given(counts=COUNTS, share=st.floats(1e-6, 1 - 1e-6))
def test_the_binomial_tail_is_scipys(counts: tuple[int, int], share: float) -> None:
    expected = scipy.stats.binom.cdf(*counts, share)
    assert binomial_cdf(*counts, share) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(counts=COUNTS, level=st.floats(0.5, 0.999))
def test_the_interval_is_clopper_and_pearsons(counts: tuple[int, int], level: float) -> None:
    expected = scipy.stats.binomtest(*counts).proportion_ci(level, method="exact")

    assert exact_interval(*counts, level) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_no_images_say_nothing() -> None:
    assert exact_interval(0, 0) == (0.0, 1.0)
    assert binomial_cdf(0, 5, 0.0) == 1.0
    assert binomial_cdf(4, 5, 1.0) == 0.0


def drawn(seed: int, images: int, worst: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Confidences, and the chance that each answer is wrong, which falls with the confidence from `worst` to 0."""
    confidence = np.random.default_rng(seed).random(images)
    return confidence, worst * (1 - confidence) ** 3


def test_confident_answers_are_wrong_at_most_at_the_promised_rate() -> None:
    """Over many sets of held-out images, a promise is broken as rarely as stated, and promises are not too timid."""
    tried, true, share = 200, np.empty(0), []
    everything, risk = drawn(999, 200_000, 0.2)
    for seed in range(tried):
        confidence, chance = drawn(seed, 3000, 0.2)
        selection = select(confidence, np.random.default_rng(10_000 + seed).random(3000) >= chance)
        if selection is not None:
            chosen = everything >= selection.threshold
            true, share = np.append(true, risk[chosen].mean()), [*share, chosen.mean()]

    # Chance allows 0.025 of the sets.
    assert (true > 0.01).mean() < 0.035
    assert len(true) > 0.95 * tried
    # The best threshold would answer 0.585 of the images.
    assert np.mean(share) > 0.35


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, images=st.integers(1, 3000), worst=st.floats(0, 1))
def test_a_selection_says_what_it_selects(seed: int, images: int, worst: float) -> None:
    confidence, chance = drawn(seed, images, worst)
    # Rounded, so that there are ties.
    confidence, correct = confidence.round(2), np.random.default_rng(seed).random(images) >= chance

    selection = select(confidence, correct)

    if images < fewest():
        assert selection is None
    if selection is not None:
        chosen = confidence >= selection.threshold
        low, high = selection.interval
        assert selection.answered == chosen.sum()
        assert low <= (~correct[chosen]).mean() <= high <= 0.01


def test_one_unlucky_error_among_the_most_confident_ends_only_one_sequence() -> None:
    confidence, correct = np.linspace(1, 0, 6000), np.ones(6000, bool)
    correct[[3, 4]] = False

    selection = select(confidence, correct)

    assert selection is not None
    assert selection.answered > 5900
    assert select(confidence[:600], correct[:600]) is None


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, images=st.integers(1, 40), classes=st.integers(1, 12))
def test_a_set_holds_the_true_class_if_its_score_is_within_the_quantile(seed: int, images: int, classes: int) -> None:
    """Sets and scores are two ways through the same sorting, ties included."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), images).round(2)
    targets = random.integers(0, classes, images)
    scores = true_scores(probabilities, targets)

    for limit in (0.0, 0.5, 0.9, 2.0):
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sizes = set_sizes(np.take_along_axis(probabilities, order, axis=1), limit)
        for row, size in enumerate(sizes.tolist()):
            assert 1 <= size <= classes
            assert size == set_size(probabilities[row, order[row]], limit)
            assert (targets[row] in order[row, :size]) == (scores[row] <= limit or targets[row] == order[row, 0])


def test_the_promised_coverage_is_kept_on_other_images() -> None:
    """Exactly, on average over the sets of held-out images: (N + 1) coverage rounded up, over N + 1."""
    random, asked = np.random.default_rng(1), 0.9
    covered = []
    for _ in range(100):
        probabilities = random.dirichlet(np.full(20, 0.5), 60)
        # The model believes too little in its answers: coverage does not depend on calibration.
        targets = np.array([random.choice(20, p=row**2 / (row**2).sum()) for row in probabilities])
        fitted, others = slice(0, 39), slice(39, 60)
        limit = quantile(quantiles(true_scores(probabilities[fitted], targets[fitted])), asked)
        assert limit is not None
        hit = true_scores(probabilities[others], targets[others]) <= limit
        covered += hit.tolist()

    assert 0.89 < np.mean(covered) < 0.93


@settings(max_examples=40, deadline=None)
@given(images=st.integers(0, 3000), asked=st.floats(0.001, 0.9999))
def test_a_coverage_is_promised_if_there_are_images_for_it(images: int, asked: float) -> None:
    values = quantiles(np.arange(images) / max(1, images))

    limit = quantile(values, asked)

    assert len(values) <= 500
    assert (limit is None) == (asked > highest_coverage(values) + 1e-9 or not values)
    if limit is not None:
        # At least this share of the scores lies within the quantile.
        assert round(limit * images) + 1 >= asked * (images + 1) - 1e-2


def test_nineteen_images_promise_a_coverage_of_95_percent() -> None:
    assert quantile(quantiles(np.arange(18.0)), 0.95) is None
    assert quantile(quantiles(np.arange(19.0)), 0.95) == 18


def test_late_places_cost() -> None:
    scores = class_scores(np.full(8, 0.125))

    np.testing.assert_allclose(scores, [0, 0.125, 0.25, 0.375, 0.5, 0.635, 0.77, 0.905])
    # Beyond a hundred places, the penalty alone ends a set.
    even = np.full(1000, 0.001, np.float32)
    assert set_size(even, 1.0) == set_sizes(even, 1.0) == 95


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, shape=st.tuples(st.integers(1, 5), st.integers(1, 6)), scale=st.floats(0, 1e4))
def test_the_energy_is_scipys(seed: int, shape: tuple[int, int], scale: float) -> None:
    logits = np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)

    np.testing.assert_allclose(familiarity(logits), scipy.special.logsumexp(logits.astype(float), axis=1), rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, images=st.integers(1, 50), foreign=st.integers(1, 50))
def test_the_auroc_is_the_rank_statistic(seed: int, images: int, foreign: int) -> None:
    random = np.random.default_rng(seed)
    ours, others = random.integers(0, 9, images).astype(float), random.integers(0, 9, foreign).astype(float)
    expected = scipy.stats.mannwhitneyu(ours, others).statistic / (images * foreign)

    assert auroc(ours, others) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(images=st.integers(1, 400))
def test_at_most_one_familiar_image_in_twenty_is_flagged(images: int) -> None:
    scores = np.random.default_rng(0).permutation(images).astype(float)

    threshold = novelty_threshold(scores)

    assert (threshold is None) == (images < 19)
    if threshold is not None:
        assert (scores < threshold).sum() + 1 <= 0.05 * (images + 1)
