"""What the hot path tells about itself: times, batch sizes and errors become metrics, and spans where a trace runs.

Every method may be called from any thread, costs about a microsecond, and does nothing for what is switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from serving.batching.items import Observer
from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics
from serving.telemetry.request_context import current
from serving.telemetry.shadow_metrics import ComparisonRecorder

if TYPE_CHECKING:
    from serving.telemetry.spans import Parent, Spans


class Queue(Protocol):
    """What waits for a model."""

    @property
    def waiting(self) -> int:
        """Pictures that nobody works on yet."""

    @property
    def pending(self) -> int:
        """Those, and the pictures that are being worked on."""


class Recorder:
    """Collects what happens in one process.

    Args:
        metrics: keep metrics; without them `exposition` is empty.
    """

    def __init__(self, *, metrics: bool = True) -> None:
        self.metrics = Metrics() if metrics else None
        self.spans: Spans | None = None
        self._queues: dict[str, Queue] = {}

    def join(self, meeting: Path, number: int) -> None:
        """Be one of several workers from now on, whose metrics are shown together; see `Metrics.join`."""
        if self.metrics:
            self.metrics.join(meeting, number)

    def trace(self, spans: Spans) -> None:
        """Make spans from now on."""
        self.spans = spans

    def model(self, name: str, version: str, variant: str) -> ModelRecorder:
        """Records the work of a loaded model."""
        return ModelRecorder(self, name, variant)

    def comparison(self, name: str, variant: str) -> ComparisonRecorder:
        """Records how a loaded model compares with the FP32 reference."""
        return ComparisonRecorder(self.metrics, name, variant)

    def serving(self, name: str, version: str, variant: str, queue: Queue) -> None:
        """A model takes requests from now on; how many pictures wait is read at each scrape, in any thread."""
        self._queues[name] = queue
        if self.metrics:
            self.metrics.set(catalogue.MODEL_INFO, (name, version, variant), lambda: 1)
            self.metrics.set(catalogue.QUEUE_DEPTH, (name, variant), lambda: queue.waiting)

    def withdrawn(self, name: str, version: str, variant: str) -> None:
        """A model takes no more requests; called before another one of its name is `serving`."""
        self._queues.pop(name, None)
        if self.metrics:
            self.metrics.unset(catalogue.MODEL_INFO, (name, version, variant))
            self.metrics.unset(catalogue.QUEUE_DEPTH, (name, variant))

    def idle(self) -> bool:
        """Whether no model that takes requests has anything to do."""
        return not any(queue.pending for queue in [*self._queues.values()])

    def swapped(self, name: str, result: str) -> None:
        """A model was to be replaced; `result` is loaded, refused or rolled_back."""
        if self.metrics:
            self.metrics.count(catalogue.SWAPS_TOTAL, (name, result))

    def rejected(self, reason: str) -> None:
        """A request, or one picture of it, is answered with the error code `reason`, one of our own few."""
        if self.metrics:
            self.metrics.count(catalogue.REJECTED_TOTAL, (reason,))

    def refused(self, reason: str) -> None:
        """The current request as a whole is answered with the error code `reason`."""
        self.rejected(reason)
        call = current.get()
        if call is not None:
            call.error = reason

    def answered(self, route: str, status: int, seconds: float, *, model: str = "") -> None:
        """A request is over.

        Args:
            route: one of the known paths or templates, or "other"; never what a client wrote.
            status: HTTP status; 499 where the client left.
            seconds: from its arrival to the end of the answer.
            model: name of the loaded model that worked on it, or empty.
        """
        if self.metrics:
            self.metrics.observe(catalogue.REQUEST_SECONDS, (route, str(status), model), seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; takes some milliseconds."""
        return self.metrics.exposition() if self.metrics else b""


class ModelRecorder(Observer):
    """Records the work of one model.

    Args:
        recorder: of the process.
        model: its name.
        variant: of the model.
    """

    def __init__(self, recorder: Recorder, model: str, variant: str) -> None:
        self._recorder = recorder
        self._metrics = recorder.metrics
        self._model = model
        self._variant = variant
        self._labels = (model, variant)

    def begin(self, items: int) -> Parent | None:
        """The current request asks the model about `items` pictures.

        To be called in the request's own task. The result is the trace of the methods below: None unless this request
        is traced.
        """
        call = current.get()
        if call is not None:
            call.model, call.variant, call.items = self._model, self._variant, items
        spans = self._recorder.spans
        return spans.parent() if spans else None

    def waited(self, seconds: float, trace: Parent | None, total: float | None) -> None:
        """A picture leaves a queue now; `total` counts once, when it is the last one."""
        if total is not None and self._metrics:
            self._metrics.observe(catalogue.QUEUE_WAIT_SECONDS, self._labels, total)
        if trace is not None:
            self._span("queue", seconds, trace, 1)

    def prepared(self, seconds: float, trace: Parent | None) -> None:
        """A picture became pixels."""
        if self._metrics:
            self._metrics.observe(catalogue.DECODE_SECONDS, self._labels, seconds)
        if trace is not None:
            self._span("decode", seconds, trace, 1)

    def ran(self, seconds: float, traces: Sequence[Parent | None]) -> None:
        """A batch went through the model; each traced request in it gets one span."""
        if self._metrics:
            self._metrics.observe(catalogue.INFER_SECONDS, self._labels, seconds)
            self._metrics.observe(catalogue.BATCH_ITEMS, self._labels, len(traces))
        if self._recorder.spans:
            for trace in dict.fromkeys(traces):
                if trace is not None:
                    self._span("infer", seconds, trace, len(traces))

    def _span(self, name: str, seconds: float, parent: Parent, items: int) -> None:
        spans = self._recorder.spans
        if spans:
            spans.ended(
                name,
                seconds,
                parent,
                {"halftone.model": self._model, "halftone.variant": self._variant, "halftone.items": items},
            )
