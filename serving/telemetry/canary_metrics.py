"""Metrics of a candidate version: its share of the requests, and the evidence about it."""

from __future__ import annotations

from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics


class CandidateRecorder:
    """Records the trial of one candidate.

    Args:
        metrics: receives it; None: nothing is recorded.
        model: name of the model.
        version: the candidate's version.
    """

    def __init__(self, metrics: Metrics | None, model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = (model, version)

    def compared(self, criterion: str, *, bad: bool) -> None:
        """Record the result of a criterion for one picture, or one request."""
        self._count(criterion, "bad" if bad else "good")

    def dropped(self) -> None:
        """Record that a copy of a picture found no room in the queue."""
        self._count("copies", "dropped")

    def _count(self, criterion: str, result: str) -> None:
        if self._metrics:
            self._metrics.count(catalogue.CANARY_TOTAL, (*self._labels, criterion, result))
