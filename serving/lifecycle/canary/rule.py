"""The rule that decides what happens to a candidate next, from the evidence about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serving.lifecycle.canary.criteria import Criterion, Limits, Tally

STAGES = (0.0, 0.1, 0.5)
"""Shares of the requests that the rule gives to a candidate, one after the other, before it is promoted."""

STAGE_ANSWERS = 30
"""Responses of the candidate before the rule leaves a share above 0."""

FAILURES_IN_A_ROW = 5
"""Failures, one after the other, on pictures or requests that end the trial at once, also without `auto`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a candidate is tried out."""

    share: float = 0.0
    """Share of the requests that it answers, 0 to 1; 0: none, it classifies copies of live pictures only."""

    sticky: str | None = None
    """Name in lower case of a request header by whose value a client stays with a version; None: by chance."""

    auto: bool = False
    """The rule changes the share, promotes and rolls back."""

    limits: Limits = field(default_factory=Limits)
    """Limits of the criteria."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the rule wants to happen next."""

    action: Literal["share", "promoted", "rolled_back"]
    """What it is."""

    reason: str
    """The evidence for it."""

    share: float = 0.0
    """The new share, for `share`."""


def next_step(
    plan: Plan, tallies: Mapping[Criterion, Tally], *, answers: int, failures: int, last_failure: str = ""
) -> Step | None:
    """Return what is to happen now; None: go on.

    Args:
        plan: how the candidate is tried out.
        tallies: evidence by criterion.
        answers: responses of the candidate since the share was last changed.
        failures: failures, one after the other, up to now.
        last_failure: message of the last failure, for the reason.
    """
    why = f" ({last_failure})" if last_failure else ""
    if failures >= FAILURES_IN_A_ROW:
        return Step(action="rolled_back", reason=f"{failures} failures in a row{why}")
    failed = {name: tally for name, tally in tallies.items() if tally.failed}
    if plan.auto and failed:
        return Step(action="rolled_back", reason=_shown(failed) + (why if "errors" in failed else ""))
    passed = all(tally.passed for tally in tallies.values()) and (not plan.share or answers >= STAGE_ANSWERS)
    return _next_stage(plan.share, _shown(tallies)) if plan.auto and passed else None


def _next_stage(share: float, reason: str) -> Step:
    for stage in STAGES:
        if stage > share:
            return Step(action="share", share=stage, reason=f"to {stage:g}; {reason}")
    return Step(action="promoted", reason=reason)


def _shown(tallies: Mapping[Criterion, Tally]) -> str:
    return "; ".join(
        f"{name} {tally.bad} of {tally.total} bad, limit {tally.limit:.3g}" for name, tally in tallies.items()
    )
