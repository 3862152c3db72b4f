"""Versions that responses name: each must be active at that time, and the one that computed the response."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.client.load import percentile
from loadtest.client.routes import Sample
from loadtest.reporting.figures import Figure

TOLERANCE = 0.002


@dataclass(frozen=True, kw_only=True)
class ServingInterval:
    """Interval in which a version is active."""

    version: str
    """Name of the version."""

    temperature: float
    """Temperature that divides the logits of this version."""

    requested: float
    """Monotonic time of the swap request: no response of this version can be older."""

    confirmed: float
    """Monotonic time of the response to the swap request: later requests must not get the previous version."""

    ended: float | None = None
    """Monotonic time at which a candidate was known to be gone; None for an active version, which the next one ends."""


def check_samples(
    samples: Sequence[Sample], intervals: Sequence[ServingInterval], trials: Sequence[ServingInterval] = ()
) -> list[Figure]:
    """Count requests, failures, responses of an inactive version, and responses that name a wrong version.

    Args:
        samples: requests of all clients.
        intervals: active versions in order; the first interval starts before the first request.
        trials: candidates beside them that were not promoted.
    """
    good = [sample for sample in samples if not sample.problem]
    wrong, misnamed = count_wrong(samples, intervals, trials)
    failed = len(samples) - len(good)
    problems = Counter(sample.problem for sample in samples if sample.problem)
    return [
        *(
            Figure(f"requests of {name}", count)
            for name, count in sorted(Counter(each.route for each in samples).items())
        ),
        Figure("failed requests", failed, "0", bool(samples) and not failed),
        *(Figure("failed with", f"{problem} ({count} times)") for problem, count in problems.most_common(5)),
        Figure("responses of an inactive version", wrong, "0", not wrong),
        Figure("responses that name another version than the one that computed them", misnamed, "0", not misnamed),
        Figure("versions seen in responses", len({sample.version for sample in good})),
    ]


def count_wrong(
    samples: Sequence[Sample], intervals: Sequence[ServingInterval], trials: Sequence[ServingInterval] = ()
) -> tuple[int, int]:
    """Return the number of valid responses of an inactive version, and of those that name a wrong one.

    Args: as for `check_samples`.
    """
    good = [sample for sample in samples if not sample.problem]
    if not good:
        return 0, 0
    # ln(p1 / p2) times the temperature is the difference of two logits: the same for every version of one network.
    every = [*intervals, *trials]
    gap = statistics.median(sample.gaps[0] * _temperature(sample.version, every) for sample in good)
    ends = [each.confirmed for each in intervals[1:]] + [float("inf")]
    spans = [(each.version, each.requested, end) for each, end in zip(intervals, ends, strict=True)]
    spans += [(each.version, each.requested, each.ended or float("inf")) for each in trials]
    wrong = sum(not _was_active(sample, spans) for sample in good)
    return wrong, sum(not _computed_by_named(sample, every, gap) for sample in good)


def _was_active(sample: Sample, spans: Sequence[tuple[str, float, float]]) -> bool:
    """Return True if the sample's version was active or on trial at some time between the request and the response.

    Args:
        sample: the response.
        spans: version, start and end.
    """
    return any(
        version == sample.version and start <= sample.received and sample.sent <= end for version, start, end in spans
    )


def _computed_by_named(sample: Sample, intervals: Sequence[ServingInterval], gap: float) -> bool:
    """Return True if the probabilities fit the temperature of the version that the response names."""
    temperature = _temperature(sample.version, intervals)
    return all(abs(each * temperature - gap) <= TOLERANCE * abs(gap) for each in sample.gaps)


def _temperature(version: str, intervals: Sequence[ServingInterval]) -> float:
    return next((each.temperature for each in intervals if each.version == version), 0.0)


def load_times(loads: Sequence[tuple[float, float]]) -> list[Figure]:
    """Return the median and the longest time of a load, as the operator sees it."""
    times = [end - start for start, end in loads]
    if not times:
        return []
    return [
        Figure("load, median s", round(statistics.median(times), 2)),
        Figure("load, longest s", round(max(times), 2)),
    ]


def latency(samples: Sequence[Sample], loads: Sequence[tuple[float, float]]) -> list[Figure]:
    """Return median and 99th percentile in milliseconds of requests that overlap a load, and of the others."""
    figures = []
    overlaps = [any(each.sent <= end and each.received >= start for start, end in loads) for each in samples]
    for name, wanted in (("during loads", True), ("between loads", False)):
        some = [each for each, during in zip(samples, overlaps, strict=True) if during is wanted]
        times = [each.latency_ms for each in some]
        if times:
            figures.append(Figure(f"latency {name}, p50 ms", round(statistics.median(times), 1)))
            figures.append(Figure(f"latency {name}, p99 ms", round(percentile(times, 99), 1)))
    return figures
