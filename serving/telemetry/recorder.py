"""Recorder of times, batch sizes and errors, as metrics and as spans of traced requests.

Every method may be called from any thread, costs about a microsecond, and does nothing if the feature is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from models.bundle.drift import Profile
from serving.telemetry import catalogue
from serving.telemetry.canary_metrics import CandidateRecorder
from serving.telemetry.drift import Drift
from serving.telemetry.inference_totals import InferenceTotals
from serving.telemetry.metrics import Metrics
from serving.telemetry.request_context import Stages, current
from serving.telemetry.shadow_metrics import ComparisonRecorder

if TYPE_CHECKING:
    from serving.telemetry.spans import Spans


class Queue(Protocol):
    """Queue of a model."""

    @property
    def waiting(self) -> int:
        """Images that no thread processes yet."""

    @property
    def pending(self) -> int:
        """Images that wait or are being processed."""


class Recorder:
    """Records the events of one process.

    Args:
        metrics: keep metrics; if False, `exposition` is empty.
    """

    def __init__(self, *, metrics: bool = True) -> None:
        self.metrics = Metrics() if metrics else None
        self.spans: Spans | None = None
        self._queues: dict[str, Queue] = {}
        self._trials: dict[str, Queue] = {}

    def join(self, folder: Path, number: int) -> None:
        """Show the metrics of all workers from now on; see `Metrics.join`."""
        if self.metrics:
            self.metrics.join(folder, number)

    def trace(self, spans: Spans) -> None:
        """Record spans from now on."""
        self.spans = spans

    def model(self, name: str, version: str, variant: str) -> ModelRecorder:
        """Return a recorder for a loaded model."""
        return ModelRecorder(self, name, variant)

    def comparison(self, name: str, variant: str, *, min_agreement: float) -> ComparisonRecorder:
        """Return a recorder for the comparison of a loaded model with the FP32 reference."""
        return ComparisonRecorder(self.metrics, name, variant, min_agreement=min_agreement)

    def candidate(self, name: str, version: str) -> CandidateRecorder:
        """Return a recorder for the trial of a candidate."""
        return CandidateRecorder(self.metrics, name, version)

    def trial(self, name: str, version: str, variant: str, queue: Queue, share: Callable[[], float]) -> None:
        """Record that a candidate is on trial from now on; `share` returns its share of the requests."""
        self._trials[name] = queue
        if self.metrics:
            self.metrics.set(catalogue.MODEL_INFO, (name, version, variant), lambda: 1)
            self.metrics.set(catalogue.CANARY_SHARE, (name, version), share)

    def trial_ended(self, name: str, version: str, variant: str) -> None:
        """Record that the trial of a candidate is over."""
        self._trials.pop(name, None)
        if self.metrics:
            self.metrics.unset(catalogue.MODEL_INFO, (name, version, variant))
            self.metrics.unset(catalogue.CANARY_SHARE, (name, version))

    def decided(self, name: str, decision: str, by: str) -> None:
        """Record a decision about a candidate."""
        if self.metrics:
            self.metrics.count(catalogue.CANARY_DECISIONS_TOTAL, (name, decision, by))

    def model_answered(self, name: str, version: str, role: str) -> None:
        """Record that a version of a model has answered a request, as the active one or as a candidate."""
        if self.metrics:
            self.metrics.count(catalogue.ANSWERS_TOTAL, (name, version, role))

    def drift(self, name: str, version: str, variant: str, profile: Profile, temperature: float) -> Drift | None:
        """Return the comparison of a loaded model's images with the profile of its proof; None without metrics."""
        return Drift(self.metrics, (name, version, variant), profile, temperature) if self.metrics else None

    def serving(self, name: str, version: str, variant: str, queue: Queue) -> None:
        """Record that a model serves requests from now on; scrapes read the length of its queue from any thread."""
        self._queues[name] = queue
        if self.metrics:
            self.metrics.set(catalogue.MODEL_INFO, (name, version, variant), lambda: 1)
            self.metrics.set(catalogue.QUEUE_DEPTH, (name, variant), lambda: queue.waiting)

    def withdrawn(self, name: str, version: str, variant: str) -> None:
        """Record that a model serves no requests any more; called before another one of this name is `serving`."""
        self._queues.pop(name, None)
        if self.metrics:
            self.metrics.unset(catalogue.MODEL_INFO, (name, version, variant))
            self.metrics.unset(catalogue.QUEUE_DEPTH, (name, variant))

    def idle(self) -> bool:
        """Return True if every model that serves requests is idle."""
        return not any(queue.pending for queue in [*self._queues.values(), *self._trials.values()])

    def swapped(self, name: str, result: str) -> None:
        """Record an attempt to replace a model; `result` is loaded, refused or rolled_back."""
        if self.metrics:
            self.metrics.count(catalogue.SWAPS_TOTAL, (name, result))

    def collected(self, result: str) -> None:
        """Record what became of a picture that was chosen to be collected."""
        if self.metrics:
            self.metrics.count(catalogue.COLLECTED_TOTAL, (result,))

    def rejected(self, reason: str) -> None:
        """Record that a request, or one image of it, gets the error code `reason`, one of the service's own."""
        if self.metrics:
            self.metrics.count(catalogue.REJECTED_TOTAL, (reason,))

    def refused(self, reason: str) -> None:
        """Record that the current request as a whole gets the error code `reason`."""
        self.rejected(reason)
        call = current.get()
        if call is not None:
            call.error = reason

    def answered(self, route: str, status: int, seconds: float, *, model: str = "") -> None:
        """Record the end of a request.

        Args:
            route: a known path or template, or "other"; never the path that the client sent.
            status: HTTP status; 499 if the client disconnected.
            seconds: from the arrival of the request to the end of the response.
            model: name of the model that processed it, or empty.
        """
        if self.metrics:
            self.metrics.observe(catalogue.REQUEST_SECONDS, (route, str(status), model), seconds)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format; takes some milliseconds."""
        return self.metrics.exposition() if self.metrics else b""


class ModelRecorder:
    """Records the work of one model, as the observer of its batcher.

    Args:
        recorder: of the process.
        model: name of the model.
        variant: variant of the model.
    """

    def __init__(self, recorder: Recorder, model: str, variant: str) -> None:
        self._recorder = recorder
        self._metrics = recorder.metrics
        self._model = model
        self._variant = variant
        self._labels = (model, variant)
        self.totals = InferenceTotals()

    def begin(self, items: int) -> Stages | None:
        """Record that the current request passes `items` images to the model; to be called in the request's own task.

        Returns:
            The trace for the methods below; None for a caller within this process that is not traced.
        """
        call, spans = current.get(), self._recorder.spans
        parent = spans.parent() if spans else None
        if call is None:
            return Stages(parent) if parent else None
        call.model, call.variant, call.items = self._model, self._variant, items
        call.stages = Stages(parent)
        return call.stages

    def ended(self, seconds: float, *, success: bool) -> None:
        """Record that the model is done with a request, which had a result for at least one image or failed."""
        self.totals.ended(seconds, success=success)

    def waited(self, seconds: float, trace: Stages | None, total: float | None) -> None:
        """Record that an image leaves a queue now; `total` is its time in all queues if this is the last one."""
        if total is not None:
            self.totals.waited(total)
            if self._metrics:
                self._metrics.observe(catalogue.QUEUE_WAIT_SECONDS, self._labels, total)
        if trace is not None:
            trace.queue += seconds
            self._span("queue", seconds, trace, 1)

    def prepared(self, seconds: float, trace: Stages | None) -> None:
        """Record that an image was decoded."""
        self.totals.decoded(seconds)
        if self._metrics:
            self._metrics.observe(catalogue.DECODE_SECONDS, self._labels, seconds)
        if trace is not None:
            trace.decode += seconds
            self._span("decode", seconds, trace, 1)

    def ran(self, seconds: float, traces: Sequence[Stages | None]) -> None:
        """Record that the model ran a batch; each request in it gets its time, and one span if it is traced."""
        self.totals.ran(seconds, len(traces))
        if self._metrics:
            self._metrics.observe(catalogue.INFER_SECONDS, self._labels, seconds)
            self._metrics.observe(catalogue.BATCH_ITEMS, self._labels, len(traces))
        for trace in dict.fromkeys(traces):
            if trace is not None:
                trace.model += seconds
                self._span("infer", seconds, trace, len(traces))

    def _span(self, name: str, seconds: float, trace: Stages, items: int) -> None:
        spans = self._recorder.spans
        if spans and trace.parent:
            spans.ended(
                name,
                seconds,
                trace.parent,
                {"halftone.model": self._model, "halftone.variant": self._variant, "halftone.items": items},
            )
