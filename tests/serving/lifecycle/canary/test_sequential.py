"""The sequential test: fair at every step, few false alarms at any number of looks, and what it notices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.lifecycle.canary.criteria import FALSE_ALARM, FALSE_PASS, Limits
from serving.lifecycle.canary.sequential import evidence_above, evidence_below

SHARES = st.floats(0.001, 0.999)


@given(limit=SHARES, part=st.floats(0, 1), counts=st.tuples(st.integers(0, 500), st.integers(0, 500)))
@settings(deadline=None)
def test_no_event_is_expected_to_add_evidence_against_a_true_hypothesis(
    limit: float, part: float, counts: tuple[int, int]
) -> None:
    bad, total = counts[0], sum(counts)
    for evidence, share in ((evidence_above, limit * part), (evidence_below, limit + (1 - limit) * part)):
        expected = share * evidence(bad + 1, total + 1, limit) + (1 - share) * evidence(bad, total + 1, limit)

        assert expected <= evidence(bad, total, limit) * (1 + 1e-9)


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.3])
def test_looking_after_each_of_2000_events_gives_few_false_alarms(limit: float) -> None:
    runs = 400
    bad = (np.random.default_rng(0).random((runs, 2000)) < limit).cumsum(axis=1)
    total = np.arange(1, 2001)

    alarms = (evidence_above(bad, total, limit) >= 1 / FALSE_ALARM).any(axis=1).mean()
    passes = (evidence_below(bad, total, limit) >= 1 / FALSE_PASS).any(axis=1).mean()

    # The true rates are 0.027 to 0.048 (8,000 runs); this many runs find them with a standard error of 0.01.
    assert alarms <= FALSE_ALARM + 2 * np.sqrt(FALSE_ALARM / runs)
    assert passes <= FALSE_PASS + 2 * np.sqrt(FALSE_PASS / runs)


@pytest.mark.parametrize(("bad_share", "most"), [(1.0, 3), (0.5, 30), (0.2, 300)])
def test_a_share_above_the_limit_is_noticed(bad_share: float, most: int) -> None:
    tally = Limits().tallies()["agreement"]
    random = np.random.default_rng(1)
    while not tally.failed and tally.total < 1000:
        tally.add(bool(random.random() < bad_share))

    assert tally.total <= most
    assert not tally.passed


def test_a_candidate_without_a_bad_event_passes() -> None:
    needed = {}
    for name, tally in Limits().tallies().items():
        while not tally.passed:
            tally.add(False)
        needed[name] = tally.total

    assert needed == {"errors": 410, "agreement": 39, "confidence": 19, "latency": 12}
    assert not Limits(min_agreement=0).tallies().get("agreement")
