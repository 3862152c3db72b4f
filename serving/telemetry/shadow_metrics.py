"""Metrics of shadow evaluation: agreement of the served variant with the FP32 reference, and drift of the input."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Literal

from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics

Comparison = Literal["agree", "disagree", "undecided"]
"""Result of a run of the reference; `undecided`: it is not decided itself, so that its class says nothing."""

MEASURES = ("mean", "variance", "confidence")

WINDOW = 100
"""Images in the baseline, which are the first ones, and in the recent sample that is compared with it."""

_FLOOR = 1e-6


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
        self._drifts = {measure: Drift() for measure in MEASURES}

    def announce(self) -> None:
        """Show the gauges."""
        if self._metrics:
            self._metrics.set(catalogue.SHADOW_MIN_AGREEMENT, self._labels, lambda: self._min_agreement)
            for measure, drift in self._drifts.items():
                labels = (*self._labels, measure)
                self._metrics.set(catalogue.INPUT_RECENT, labels, lambda drift=drift: drift.recent)  # type: ignore[misc]
                self._metrics.set(catalogue.INPUT_DRIFT, labels, lambda drift=drift: drift.distance)  # type: ignore[misc]

    def withdraw(self) -> None:
        """Remove the gauges."""
        if self._metrics:
            self._metrics.unset(catalogue.SHADOW_MIN_AGREEMENT, self._labels)
            for measure in MEASURES:
                self._metrics.unset(catalogue.INPUT_RECENT, (*self._labels, measure))
                self._metrics.unset(catalogue.INPUT_DRIFT, (*self._labels, measure))

    def ended(self, result: Comparison | Literal["dropped", "failed"]) -> None:
        """Record the result for a sampled image."""
        if self._metrics:
            self._metrics.count(catalogue.SHADOW_TOTAL, (*self._labels, result))

    def compared(self, result: Comparison, *, delta: float, mean: float, variance: float, confidence: float) -> None:
        """Record a run of the reference.

        Args:
            result: `agree` if both have the same class first.
            delta: largest difference of a logit.
            mean: mean of the image's pixels, 0 to 255.
            variance: variance of the image's pixels.
            confidence: highest probability of the served variant, 0 to 1.
        """
        self.ended(result)
        for measure, value in zip(MEASURES, (mean, variance, confidence), strict=True):
            self._drifts[measure].add(value)
        if self._metrics:
            self._metrics.observe(catalogue.SHADOW_LOGIT_DELTA, self._labels, delta)


class Drift:
    """Drift of a measure: mean of its last `WINDOW` values compared with the first ones; one writer, many readers."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._mean = self._deviation = math.nan

    def add(self, value: float) -> None:
        """Add the value of one image, unless it is not finite."""
        if not math.isfinite(value):
            return
        self._last.append(value)
        if len(self._first) < WINDOW:
            self._first.append(value)
            if len(self._first) == WINDOW:
                self._mean = statistics.fmean(self._first)
                self._deviation = max(statistics.pstdev(self._first), _FLOOR * max(1.0, abs(self._mean)))

    @property
    def recent(self) -> float:
        """Mean of the last values; NaN before the first one."""
        values = [*self._last]
        return statistics.fmean(values) if values else math.nan

    @property
    def distance(self) -> float:
        """Distance from the mean of the first values in their standard deviations; NaN until there are `WINDOW`."""
        return (self.recent - self._mean) / self._deviation
