"""Counters, histograms and gauges of one process, cheaper to update than prometheus_client's own.

Under BentoML prometheus_client stores each number in a memory-mapped file. An update costs ten times as much as here,
and the next server on the machine empties the folder of these files. Here the numbers stay in the memory of the
process, and prometheus_client only formats them for a scrape. `serving.telemetry.worker_metrics` merges those of
several workers.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sized
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from serving.telemetry.catalogue import METRICS, Metric
from serving.telemetry.worker_metrics import WorkerMetrics

if TYPE_CHECKING:
    import prometheus_client

Labels = tuple[str, ...]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
"""Media type of the result of `exposition`."""

MOST_SERIES = 1000
"""Label sets of one metric; any others are counted together, so that a mistake can't fill the memory."""
OVERFLOW = "other"


class _Histogram:
    """Number of observations in each bucket, of which the last has no upper bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


class Metrics:
    """The values of all metrics of the catalogue; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histograms: dict[Metric, dict[Labels, _Histogram]] = {m: {} for m in METRICS if m.kind == "histogram"}
        self._counters: dict[Metric, dict[Labels, int]] = {m: {} for m in METRICS if m.kind == "counter"}
        self._gauges: dict[Metric, dict[Labels, Callable[[], float]]] = {m: {} for m in METRICS if m.kind == "gauge"}
        self._registry: prometheus_client.CollectorRegistry | None = None
        self._workers: WorkerMetrics | None = None

    def observe(self, metric: Metric, labels: Labels, value: float) -> None:
        """Add one observation to a histogram."""
        with self._lock:
            series = self._histograms[metric]
            histogram = series.get(labels)
            if histogram is None:
                labels = _bounded(series, labels)
                histogram = series.setdefault(labels, _Histogram(len(metric.buckets)))
            histogram.counts[bisect_left(metric.buckets, value)] += 1
            histogram.total += value

    def count(self, metric: Metric, labels: Labels) -> None:
        """Add one to a counter."""
        with self._lock:
            series = self._counters[metric]
            if labels not in series:
                labels = _bounded(series, labels)
            series[labels] = series.get(labels, 0) + 1

    def set(self, metric: Metric, labels: Labels, read: Callable[[], float]) -> None:
        """Set the function that reads a gauge."""
        with self._lock:
            self._gauges[metric][labels] = read

    def unset(self, metric: Metric, labels: Labels) -> None:
        """Remove a gauge, and release its function."""
        with self._lock:
            self._gauges[metric].pop(labels, None)

    def join(self, folder: Path, number: int) -> None:
        """Show the metrics of all workers from now on, each with the label `worker`.

        Args:
            folder: for the sockets of the workers.
            number: of this worker.

        Raises:
            OSError: there can be no socket in the folder.
        """
        workers = WorkerMetrics(folder, number, self._own_registry())
        workers.start()
        self._workers = workers

    def exposition(self) -> bytes:
        """Return all metrics, and those of the process, in Prometheus' text format."""
        # Imported here: the first scrape may take longer, the start of the service may not.
        import prometheus_client

        return prometheus_client.generate_latest(self._workers or self._own_registry())

    def _own_registry(self) -> prometheus_client.CollectorRegistry:
        import prometheus_client

        if self._registry is None:
            registry = prometheus_client.CollectorRegistry()
            registry.register(self)
            prometheus_client.ProcessCollector(registry=registry)
            self._registry = registry
        return self._registry

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """Yield the families, as prometheus_client expects of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for metric in METRICS:
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, counts, total in self._observed(metric):
                    histogram.add_metric(labels, _cumulative(metric.buckets, counts), total)
                yield histogram
            elif metric.kind == "counter":
                counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in self._counted(metric):
                    counter.add_metric(labels, value)
                yield counter
            else:
                gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, read in self._readable(metric):
                    gauge.add_metric(labels, read())
                yield gauge

    def _observed(self, metric: Metric) -> list[tuple[Labels, list[int], float]]:
        with self._lock:
            return [(labels, [*each.counts], each.total) for labels, each in self._histograms[metric].items()]

    def _counted(self, metric: Metric) -> list[tuple[Labels, int]]:
        with self._lock:
            return [*self._counters[metric].items()]

    def _readable(self, metric: Metric) -> list[tuple[Labels, Callable[[], float]]]:
        # Read outside the lock: the function of a gauge may wait for a lock whose owner is about to observe something.
        with self._lock:
            return [*self._gauges[metric].items()]


def _bounded(series: Sized, labels: Labels) -> Labels:
    return labels if len(series) < MOST_SERIES else (OVERFLOW,) * len(labels)


def _cumulative(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Return Prometheus' buckets, each of which counts all observations up to its bound."""
    names = [*map(str, bounds), "+Inf"]
    return [(name, float(total)) for name, total in zip(names, accumulate(counts), strict=True)]
