"""Compare the statistics with scipy."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from models.common.statistics import rate, softmax

COUNTS = st.integers(1, 10**6).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
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


@given(logits=LOGITS, temperature=st.floats(0.1, 10))
def test_softmax(logits: list[list[float]], temperature: float) -> None:
    values = np.array(logits, np.float64)

    np.testing.assert_allclose(
        softmax(values, temperature), scipy.special.softmax(values / temperature, axis=1), rtol=1e-9, atol=1e-300
    )
