"""The rule: from shadow over two shares to all, or back."""

import pytest

from serving.lifecycle.canary.criteria import Criterion, Limits, Tally
from serving.lifecycle.canary.rule import FAILURES_IN_A_ROW, STAGE_ANSWERS, Plan, next_step


def tallies(failed: str = "", good: int = 500) -> dict[Criterion, Tally]:
    """Tallies after this number of good events, of which one has failed since."""
    found = Limits().tallies()
    for name, tally in found.items():
        for _ in range(good):
            tally.add(False)
        while name == failed and not tally.failed:
            tally.add(True)
    return found


@pytest.mark.parametrize(
    ("share", "answers", "action", "next_share"),
    [
        (0.0, 0, "share", 0.1),
        (0.05, STAGE_ANSWERS, "share", 0.1),
        (0.1, STAGE_ANSWERS - 1, None, None),
        (0.1, STAGE_ANSWERS, "share", 0.5),
        (0.5, STAGE_ANSWERS, "promoted", 0.0),
        (1.0, STAGE_ANSWERS, "promoted", 0.0),
    ],
)
def test_a_good_candidate_goes_on(share: float, answers: int, action: str | None, next_share: float | None) -> None:
    evidence = tallies()
    step = next_step(Plan(share=share, auto=True), evidence, answers=answers, failures=0)

    assert (step and step.action, step and step.share) == (action, next_share)
    assert next_step(Plan(share=share), evidence, answers=answers, failures=0) is None


def test_it_stays_until_all_criteria_have_passed() -> None:
    assert next_step(Plan(auto=True), tallies(good=100), answers=0, failures=0) is None


@pytest.mark.parametrize("failed", ["errors", "agreement", "confidence", "latency"])
def test_one_failed_criterion_is_enough(failed: str) -> None:
    step = next_step(
        Plan(share=0.5, auto=True), tallies(failed), answers=99, failures=1, last_failure="ValueError('dark')"
    )

    assert step is not None
    assert step.action == "rolled_back"
    assert step.reason.startswith(f"{failed} ")
    assert ("ValueError('dark')" in step.reason) is (failed == "errors")


@pytest.mark.parametrize("auto", [True, False])
def test_failures_in_a_row_end_the_trial_in_any_case(auto: bool) -> None:
    plan = Plan(auto=auto)
    step = next_step(plan, tallies(), answers=0, failures=FAILURES_IN_A_ROW, last_failure="x")

    assert step is not None
    assert (step.action, step.reason) == ("rolled_back", f"{FAILURES_IN_A_ROW} failures in a row (x)")
    assert next_step(Plan(), tallies("errors"), answers=0, failures=FAILURES_IN_A_ROW - 1) is None
