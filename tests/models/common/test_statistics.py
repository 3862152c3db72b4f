"""Compare the statistics with scipy."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from models.common.statistics import mcnemar_p, rate, sign_test_p, softmax

COUNTS = st.integers(1, 10**6).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
PAIRS = st.one_of(st.integers(0, 60), st.integers(0, 20_000))
LOGITS = st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=4)


@given(counts=COUNTS)
def test_a_rate_has_the_wilson_interval(counts: tuple[int, int]) -> None:
    successes, trials = counts
    result = scipy.stats.binomtest(successes, trials)
    interval = result.proportion_ci(confidence_level=0.95, method="wilson")

    values = rate(successes, trials)

    assert values["value"] == result.statistic
    assert values["low"] == pytest.approx(interval.low, rel=1e-6, abs=1e-9)
    assert values["high"] == pytest.approx(interval.high, rel=1e-6, abs=1e-9)
    assert 0 <= values["low"] <= values["value"] + 1e-12
    assert values["value"] - 1e-12 <= values["high"] <= 1


def test_a_rate_without_trials_says_nothing() -> None:
    assert rate(0, 0) == {"value": 0.0, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 5, 10, 77, 10_000])
def test_none_and_all_of_the_trials_have_exact_ends(trials: int) -> None:
    assert rate(trials, trials)["high"] == 1.0
    assert rate(0, trials)["low"] == 0.0


@given(worse=PAIRS, better=PAIRS)
def test_the_sign_test_is_scipys_one_sided_binomial_test(worse: int, better: int) -> None:
    expected = scipy.stats.binom.sf(worse - 1, worse + better, 0.5)

    assert sign_test_p(worse, better) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("worse", [5_000_000, 5_000_001, 5_003_000, 5_030_000, 6_000_000, 10_000_000, 0])
def test_the_sign_test_of_ten_million_pairs(worse: int) -> None:
    pairs = 10_000_000

    expected = scipy.stats.binom.sf(worse - 1, pairs, 0.5)
    assert sign_test_p(worse, pairs - worse) == pytest.approx(expected, rel=1e-8, abs=1e-300)
    assert mcnemar_p(worse, pairs - worse) == mcnemar_p(pairs - worse, worse)


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
def test_softmax(logits: list[list[float]], temperature: float) -> None:
    values = np.array(logits, np.float64)

    np.testing.assert_allclose(
        softmax(values, temperature), scipy.special.softmax(values / temperature, axis=1), rtol=1e-9, atol=1e-300
    )
