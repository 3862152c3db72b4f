"""From a run's samples to figures, and whether these can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.client.load import percentile
from loadtest.openloop.samples import Run, Sample

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 100.0)
_NORMAL_95 = 1.96
_DRIFT_FACTOR, _DRIFT_SHARE = 1.5, 0.2
_LATE_SHARE, _LATE_SECONDS, _BUSY = 0.2, 0.002, 0.9


@dataclass(frozen=True, kw_only=True)
class Level:
    """The figures of one run; latencies in milliseconds, counted from the intended time of sending.

    A request that failed or was answered wrongly counts as infinitely slow.
    """

    offered: float
    """Requests a second that were to be sent."""

    achieved: float
    """Right answers a second."""

    requests: int
    failed: int
    """Answered otherwise than with 200, or not at all."""

    wrong: int
    """Answered with 200 and another class than expected."""

    latency_ms: dict[str, float]
    """Percentile, such as `99`, to latency."""

    p99_interval_ms: tuple[float, float]
    """95 % interval of the 99th percentile, from order statistics: it holds for any distribution."""

    drift: float
    """Median latency of the second half of the run by that of the first."""

    steady: bool
    """Whether latency neither grew nor fell from one half of the run to the other."""

    late_ms: float
    """99th percentile of how late the generator sent its requests."""

    client_cpu: float
    """Share of a core that the generator used."""

    client_bound: bool
    """Whether the generator itself was too slow, so that the figures are not the server's."""

    def ms(self, percent: float) -> float:
        """A latency of `PERCENTILES`."""
        return self.latency_ms[f"{percent:g}"]

    def holds(self, percent: float, target_ms: float) -> bool:
        """Whether the percentile is within the target, by a queue that isn't growing."""
        return self.ms(percent) <= target_ms and (self.steady or self.drift < 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready but for infinite latencies."""
        return asdict(self)


def level(run: Run, *, offered: float, begin: float, end: float, target_ms: float) -> Level:
    """The figures of the requests that were to be sent from `begin` on and before `end`.

    Args:
        run: what was seen.
        offered: requests a second; 0 in a closed loop, where the generator can't be late.
        begin: end of the ramp, in seconds from the start of the run.
        end: in seconds from the start of the run.
        target_ms: latency by which drift and lateness are judged.
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


def interval(values: Sequence[float], percent: float) -> tuple[float, float]:
    """95 % confidence interval of a percentile, without any assumption on the distribution.

    The number of values below the true percentile is binomial; its normal approximation gives the ranks (Hahn and
    Meeker, Statistical Intervals, section 5.2). Where there are too few values for the upper rank, it is infinite.
    """
    if not values:
        return math.nan, math.nan
    count, share = len(values), percent / 100
    spread = _NORMAL_95 * math.sqrt(count * share * (1 - share))
    ordered = [*sorted(values), math.inf]
    low, high = math.floor(count * share - spread), math.ceil(count * share + spread) + 1
    return ordered[max(low, 1) - 1], ordered[min(high, count + 1) - 1]


def stationarity(latencies: Sequence[float], target_ms: float) -> tuple[float, bool]:
    """Median of the second half by that of the first, and whether the two are about the same.

    A queue that grows shows as a second half that is slower by half and by a fifth of the target; a server that was not
    warm as one that is faster by as much.
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
    """Right answers a second that arrived within the first `seconds`."""
    return sum(sample.right and sample.done <= seconds for sample in samples) / seconds
