"""The metrics of pictures that were classified twice: by the variant that answered and by the FP32 reference."""

# MERGED-DOC """Whether pictures are still like those that came first, one number a picture."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Literal

from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics

MEASURES = ("mean", "variance", "confidence")


class ComparisonRecorder:
    """Records the comparisons of one model.

    Args:
        metrics: where to; None: nowhere.
        model: its name.
        variant: that answers.
    """

    def __init__(self, metrics: Metrics | None, model: str, variant: str) -> None:
        self._metrics = metrics
        self._labels = (model, variant)
        self._drifts = {measure: Drift() for measure in MEASURES}

    def announce(self) -> None:
        """Show the gauges."""
        if self._metrics:
            for measure, drift in self._drifts.items():
                labels = (*self._labels, measure)
                self._metrics.set(catalogue.INPUT_RECENT, labels, lambda drift=drift: drift.recent)  # type: ignore[misc]
                self._metrics.set(catalogue.INPUT_DRIFT, labels, lambda drift=drift: drift.distance)  # type: ignore[misc]

    def withdraw(self) -> None:
        """Show the gauges no more."""
        if self._metrics:
            for measure in MEASURES:
                self._metrics.unset(catalogue.INPUT_RECENT, (*self._labels, measure))
                self._metrics.unset(catalogue.INPUT_DRIFT, (*self._labels, measure))

    def ended(self, result: Literal["agree", "disagree", "dropped", "failed"]) -> None:
        """A sampled picture is done with."""
        if self._metrics:
            self._metrics.count(catalogue.SHADOW_TOTAL, (*self._labels, result))

    def compared(self, *, agree: bool, delta: float, mean: float, variance: float, confidence: float) -> None:
        """The reference has run.

        Args:
            agree: whether both name the same class first.
            delta: largest difference of a logit.
            mean: of the picture's pixels, 0 to 255.
            variance: of them.
            confidence: highest probability of the answer, 0 to 1.
        """
        self.ended("agree" if agree else "disagree")
        for measure, value in zip(MEASURES, (mean, variance, confidence), strict=True):
            self._drifts[measure].add(value)
        if self._metrics:
            self._metrics.observe(catalogue.SHADOW_LOGIT_DELTA, self._labels, delta)


WINDOW = 100

"""Pictures that make the baseline, and the last ones that are held against it."""

_FLOOR = 1e-6


class Drift:
    """Compares the mean of the last `WINDOW` values with that of the first ones; for one writer, and any readers."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._mean = self._deviation = math.nan

    def add(self, value: float) -> None:
        """One more picture; a number that is none is left out."""
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
        """From the first values' mean, in standard deviations of one value; NaN while these are being collected."""
        return (self.recent - self._mean) / self._deviation
