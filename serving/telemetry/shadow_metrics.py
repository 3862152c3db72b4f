"""Metrics of shadow evaluation: agreement of the served variant with the FP32 reference."""

from __future__ import annotations

from typing import Literal

from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics

Comparison = Literal["agree", "disagree", "undecided"]
"""Result of a run of the reference; `undecided`: it is not decided itself, so that its class says nothing."""


class ComparisonRecorder:
    """Records the comparisons of one model.

    Args:
        metrics: receives them; None: nothing is recorded.
        model: name of the model.
        variant: the served variant.
        min_agreement: share of the decided images on which the gate wants the variant to agree, 0 to 1.
    """

    def __init__(self, metrics: Metrics | None, model: str, variant: str, *, min_agreement: float) -> None:
        self._metrics = metrics
        self._labels = (model, variant)
        self._min_agreement = min_agreement

    def announce(self) -> None:
        """Show the gauge."""
        if self._metrics:
            self._metrics.set(catalogue.SHADOW_MIN_AGREEMENT, self._labels, lambda: self._min_agreement)

    def withdraw(self) -> None:
        """Remove the gauge."""
        if self._metrics:
            self._metrics.unset(catalogue.SHADOW_MIN_AGREEMENT, self._labels)

    def ended(self, result: Comparison | Literal["dropped", "failed"]) -> None:
        """Record the result for a sampled image."""
        if self._metrics:
            self._metrics.count(catalogue.SHADOW_TOTAL, (*self._labels, result))

    def compared(self, result: Comparison, *, delta: float) -> None:
        """Record a run of the reference.

        Args:
            result: `agree` if both have the same class first.
            delta: largest difference of a logit.
        """
        self.ended(result)
        if self._metrics:
            self._metrics.observe(catalogue.SHADOW_LOGIT_DELTA, self._labels, delta)
