"""Criteria by which a candidate is compared with the active version, and how many bad events each allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from serving.lifecycle.canary.sequential import evidence_above, evidence_below

Criterion = Literal["errors", "agreement", "confidence", "latency"]

FALSE_ALARM = 0.05
"""Most probability that a candidate whose shares are all within the limits is ever rolled back: each criterion has an
equal part of it (Bonferroni)."""

FALSE_PASS = 0.05
"""Most probability that a candidate with a share beyond its limit ever passes. It needs no parts: all criteria must
pass (Berger 1982, intersection-union test)."""

MOST_ERRORS = 0.01
"""Share of pictures on which the candidate may fail."""

CONFIDENCE_DROP = 0.1
"""A fall of the best class's probability, against the active version's for the same picture, that counts as bad."""

MOST_LESS_SURE = 0.2
"""Share of pictures on which that may happen."""

MOST_SLOWER = 0.3
"""Share of the times, each the least of a few pictures, that may be over `max_slowdown` times the active version's."""

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that depend on why a model is replaced."""

    min_agreement: float = 0.9
    """Share of the same pictures on which both name the same label, 0 to below 1; 0: not a criterion."""

    max_slowdown: float = 1.5
    """Time of the candidate over that of the active version for the same picture, from 1 on."""

    def tallies(self) -> dict[Criterion, Tally]:
        """Return an empty tally for each criterion."""
        shares: dict[Criterion, float] = {
            "errors": MOST_ERRORS,
            "agreement": 1 - self.min_agreement,
            "confidence": MOST_LESS_SURE,
            "latency": MOST_SLOWER,
        }
        if not self.min_agreement:
            del shares["agreement"]
        return {name: Tally(limit, alpha=FALSE_ALARM / len(shares)) for name, limit in shares.items()}


class Tally:
    """Events of one criterion, with the evidence that they are.

    Args:
        limit: share of bad events that is allowed.
        alpha: probability of a false alarm.
    """

    def __init__(self, limit: float, *, alpha: float) -> None:
        self.limit = limit
        self.total = self.bad = 0
        self.failed = self.passed = False
        self._alpha = alpha

    def add(self, bad: bool) -> None:
        """Add an event; every look is valid, so what was once shown stays."""
        self.total += 1
        self.bad += bad
        self.failed = self.failed or bool(self.above >= 1 / self._alpha)
        self.passed = self.passed or bool(self.below >= 1 / FALSE_PASS)

    @property
    def above(self) -> float:
        """E-value against the hypothesis that the share is within the limit."""
        return float(evidence_above(self.bad, self.total, self.limit))

    @property
    def below(self) -> float:
        """E-value against the hypothesis that the share is at the limit or beyond it."""
        return float(evidence_below(self.bad, self.total, self.limit))

    @property
    def share(self) -> float:
        """Share of bad events; 0 before the first."""
        return self.bad / self.total if self.total else 0.0

    def description(self) -> dict[str, Any]:
        """Return the tally for JSON."""
        return {
            "events": self.total,
            "bad": self.bad,
            "share": round(self.share, _DIGITS),
            "limit": round(self.limit, _DIGITS),
            "evidence_bad": round(self.above, _DIGITS),
            "evidence_good": round(self.below, _DIGITS),
            "verdict": "failed" if self.failed else "passed" if self.passed else "open",
        }
