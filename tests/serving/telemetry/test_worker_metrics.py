"""Metrics of several workers in one exposition."""

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.catalogue import QUEUE_DEPTH, REJECTED_TOTAL, REQUEST_SECONDS
from serving.telemetry.metrics import Metrics
from serving.telemetry.worker_metrics import WorkerMetrics


def test_metrics_of_several_workers_are_one_exposition(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = {number: Metrics() for number in (1, 2, 12)}
    for number, each in metrics.items():
        each.join(tmp_path, number)
        each.observe(REQUEST_SECONDS, ("/classify", "200", 'm"\n\\'), number)
        each.set(QUEUE_DEPTH, ("m", "v"), lambda number=number: number)  # type: ignore[misc]
        for _ in range(number):
            each.count(REJECTED_TOTAL, ("x",))
    # A socket that a killed worker has left: no process listens.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "metrics-3"))

    text = metrics[2].exposition().decode()

    families = list(text_string_to_metric_families(text))
    assert Counter(family.name for family in families).most_common(1)[0][1] == 1
    values = {
        (sample.name, sample.labels["worker"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name in ("halftone_rejected_total", "halftone_request_seconds_sum", "halftone_queue_depth")
    }
    names = ("halftone_rejected_total", "halftone_request_seconds_sum", "halftone_queue_depth")
    assert values == {(name, str(number)): float(number) for name in names for number in metrics}
    assert caplog.text == ""
    assert not (tmp_path / "metrics-3").exists()


class Failing:
    """A collector that fails the first time."""

    calls = 0

    def collect(self) -> Iterator[prometheus_client.Metric]:
        self.calls += 1
        if self.calls == 1:
            raise ValueError("not now")
        yield prometheus_client.Metric("sent", "", "gauge")


def test_a_worker_sends_its_metrics_again_after_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    WorkerMetrics(tmp_path, 1, Failing()).start()
    other = WorkerMetrics(tmp_path, 2, prometheus_client.CollectorRegistry())

    first = [family.name for family in other.collect()]
    second = [family.name for family in other.collect()]

    assert (first, second) == ([], ["sent"])
    assert "not now" in caplog.text


def test_metrics_that_can_not_be_shared_say_so(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()

    with pytest.raises(OSError, match="AF_UNIX path too long"):
        Metrics().join(deep, 1)
