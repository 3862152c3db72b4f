"""What the hot path tells about itself: times, batch sizes and refusals become metrics, and spans where a trace runs.

Every method may be called from any thread and costs about a microsecond; each is a no-op for what is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics
from serving.telemetry.request import current
from serving.telemetry.spans import Parent, Spans


class Recorder:
    """Collects what happens in one process.

    Args:
        metrics: keep metrics; else `exposition` is empty.
        spans: where traces go; None without tracing.
    """

    def __init__(self, *, metrics: bool = True, spans: Spans | None = None) -> None:
        self._metrics = Metrics() if metrics else None
        self._spans = spans

    def serves(self, model: str, version: str, variant: str) -> None:
        """A model is loaded from now on."""
        if self._metrics:
            self._metrics.set(catalogue.MODEL_INFO, (model, version, variant), lambda: 1)

    def queue(self, model: str, variant: str, read: Callable[[], int]) -> None:
        """Where the number of waiting pictures can be read; `read` is called at each scrape, from any thread."""
        if self._metrics:
            self._metrics.set(catalogue.QUEUE_DEPTH, (model, variant), read)

    def begin(self, model: str, variant: str, items: int) -> Parent | None:
        """The current request asks this model about `items` pictures.

        To be called in the request's own task; the result goes with the pictures into the queue and then as `parent`
        to the methods below. It is None unless the request is traced.
        """
        call = current.get()
        if call is not None:
            call.model, call.variant, call.items = model, variant, items
        return self._spans.parent() if self._spans else None

    def decoded(self, model: str, variant: str, seconds: float, parent: Parent | None = None) -> None:
        """A picture was turned into pixels within `seconds`, which end now."""
        if self._metrics:
            self._metrics.observe(catalogue.DECODE_SECONDS, (model, variant), seconds)
        if parent is not None and self._spans:
            self._spans.ended("decode", seconds, parent, model, variant)

    def waited(self, model: str, variant: str, seconds: float, parent: Parent | None = None) -> None:
        """A picture left the queue, in which it was for `seconds`, to be worked on now."""
        if self._metrics:
            self._metrics.observe(catalogue.QUEUE_WAIT_SECONDS, (model, variant), seconds)
        if parent is not None and self._spans:
            self._spans.ended("queue", seconds, parent, model, variant)

    def inferred(
        self, model: str, variant: str, items: int, seconds: float, parents: Iterable[Parent | None] = ()
    ) -> None:
        """A batch of `items` pictures went through the model within `seconds`, which end now."""
        if self._metrics:
            self._metrics.observe(catalogue.INFER_SECONDS, (model, variant), seconds)
            self._metrics.observe(catalogue.BATCH_ITEMS, (model, variant), items)
        if self._spans:
            for parent in dict.fromkeys(parents):
                if parent is not None:
                    self._spans.ended("infer", seconds, parent, model, variant, items)

    def rejected(self, reason: str) -> None:
        """A request, or one picture of it, was answered with the error code `reason`, one of our own few."""
        if self._metrics:
            self._metrics.count(catalogue.REJECTED_TOTAL, (reason,))

    def answered(self, route: str, status: int, seconds: float, *, model: str = "") -> None:
        """A request is over.

        Args:
            route: one of the known paths or templates, or "other"; never what a client wrote.
            status: HTTP status; 499 where the client left.
            seconds: from its first byte to the last of the answer.
            model: name of the loaded model that worked on it, or empty.
        """
        if self._metrics:
            self._metrics.observe(catalogue.REQUEST_SECONDS, (route, str(status), model), seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; takes some milliseconds."""
        return self._metrics.exposition() if self._metrics else b""
