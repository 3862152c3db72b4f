"""Figures of one run: latency percentiles, drift, and the checks that tell if the figures are the server's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.client.load import percentile
from loadtest.openloop.interval import interval
from loadtest.openloop.samples import Run, Sample

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 100.0)
_DRIFT_FACTOR, _DRIFT_SHARE = 1.5, 0.2
_LATE_SHARE, _LATE_SECONDS, _BUSY = 0.2, 0.002, 0.9


@dataclass(frozen=True, kw_only=True)
class Level:
    """Figures of one run; latencies in milliseconds, counted from the intended time of sending.

    A request that failed or got a wrong class counts as infinitely slow.
    """

    offered: float
    """Intended requests a second."""

    achieved: float
    """Right responses a second."""

    requests: int
    failed: int
    """Requests with another status than 200, or without a response."""

    wrong: int
    """Requests with status 200 and another class than expected."""

    latency_ms: dict[str, float]
    """Latency by percentile, such as `99`."""

    p99_interval_ms: tuple[float, float] | None
    """95 % confidence interval of the 99th percentile; None: the run is too short for one."""

    drift: float
    """Median latency of the second half of the run, divided by that of the first."""

    steady: bool
    """True if latency neither grew nor fell from one half of the run to the other."""

    late_ms: float
    """99th percentile of the generator's delay in sending a request."""

    client_cpu: float
    """Share of one core that the generator used."""

    client_bound: bool
    """True if the generator itself was too slow, so that the figures are not the server's."""

    def ms(self, percent: float) -> float:
        """Return the latency of a percentile in `PERCENTILES`."""
        return self.latency_ms[f"{percent:g}"]

    def holds(self, percent: float, target_ms: float) -> bool:
        """Return True if the percentile is within the target and the queue does not grow."""
        return self.ms(percent) <= target_ms and (self.steady or self.drift < 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-ready except for infinite latencies."""
        return asdict(self)


def level(run: Run, *, offered: float, begin: float, end: float, target_ms: float) -> Level:
    """Return the figures of the requests with an intended time from `begin` on and before `end`.

    Args:
        run: the samples.
        offered: intended requests a second; 0 in a closed loop, in which the generator can't be late.
        begin: end of the ramp, in seconds from the start of the run.
        end: in seconds from the start of the run.
        target_ms: latency target; drift and lateness are compared with it.
    """
    samples = [sample for sample in run.samples if begin <= sample.intended < end]
    latencies = [1000 * sample.latency if sample.right else math.inf for sample in samples]
    late = [sample.sent - sample.intended for sample in samples]
    drift, steady = stationarity(latencies, target_ms)
    late_ms = 1000 * percentile(late, 99)
    slow = late_ms > max(_LATE_SHARE * target_ms, 1000 * _LATE_SECONDS)
    return Level(
        offered=offered,
        achieved=sum(sample.right for sample in samples) / (end - begin),
        requests=len(samples),
        failed=sum(sample.status != 200 for sample in samples),
        wrong=sum(sample.status == 200 and not sample.right for sample in samples),
        latency_ms={f"{percent:g}": percentile(latencies, percent) for percent in PERCENTILES},
        p99_interval_ms=interval(latencies, 99),
        drift=drift,
        steady=steady,
        late_ms=late_ms,
        client_cpu=run.cpu_share,
        client_bound=slow or run.cpu_share > _BUSY or run.unsent > 0,
    )


def stationarity(latencies: Sequence[float], target_ms: float) -> tuple[float, bool]:
    """Return the median of the second half divided by that of the first, and True if the two halves agree.

    They disagree if one median is above 1.5 times the other and the difference is above a fifth of the target: the
    second half is slower if a queue grows, and faster if the server was not warm.
    """
    half = len(latencies) // 2
    if not half:
        return 1.0, False
    first, second = statistics.median(latencies[:half]), statistics.median(latencies[half:])
    if math.inf in (first, second):
        return (1.0, False) if first == second else (second / first, False)
    apart = max(first, second) > _DRIFT_FACTOR * min(first, second) and abs(second - first) > _DRIFT_SHARE * target_ms
    return second / max(first, 1e-9), not apart


def throughput(samples: Sequence[Sample], seconds: float) -> float:
    """Return the right responses a second, of those that arrived within the first `seconds`."""
    return sum(sample.right and sample.done <= seconds for sample in samples) / seconds
