"""What a client may have been told at any time, and whether it was."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.reporting.figures import Figure
from loadtest.swaps.clients import Sample

TOLERANCE = 0.002


@dataclass(frozen=True, kw_only=True)
class ServingInterval:
    """A version in charge."""

    version: str
    """Its name."""

    temperature: float
    """Divides its logits."""

    begun: float
    """When it was asked for, monotonic seconds: no answer of it can be older."""

    done: float
    """When the operator was told that it is in charge: no request sent later may get its predecessor's answer."""


def judge(samples: Sequence[Sample], reigns: Sequence[ServingInterval]) -> list[Figure]:
    """Count requests, failures, and answers by a version that could not answer then or that did not make them.

    Args:
        samples: of all clients.
        reigns: in their order; the first began before the clients did.
    """
    good = [sample for sample in samples if not sample.problem]
    # ln(p1 / p2) times the temperature is the difference of two logits: the same for every version of one network.
    gap = statistics.median(sample.gaps[0] * _temperature(sample.version, reigns) for sample in good) if good else 0.0
    wrong = sum(not _allowed(sample, reigns) for sample in good)
    foreign = sum(not _made_by(sample, reigns, gap) for sample in good)
    failed = len(samples) - len(good)
    problems = Counter(sample.problem for sample in samples if sample.problem)
    return [
        *(Figure(f"requests of {way}", count) for way, count in sorted(Counter(each.way for each in samples).items())),
        Figure("failed requests", failed, "0", bool(samples) and not failed),
        *(Figure("failed with", f"{problem} ({count} times)") for problem, count in problems.most_common(5)),
        Figure("answers by a version not in charge", wrong, "0", not wrong),
        Figure("answers not made by the version they name", foreign, "0", not foreign),
        Figure("versions that answered", len({sample.version for sample in good})),
    ]


def _allowed(sample: Sample, reigns: Sequence[ServingInterval]) -> bool:
    """Whether its version was in charge at some moment between the request and the answer."""
    ends = [reign.done for reign in reigns[1:]] + [float("inf")]
    return any(
        reign.version == sample.version and reign.begun <= sample.received and sample.sent <= end
        for reign, end in zip(reigns, ends, strict=True)
    )


def _made_by(sample: Sample, reigns: Sequence[ServingInterval], gap: float) -> bool:
    temperature = _temperature(sample.version, reigns)
    return all(abs(each * temperature - gap) <= TOLERANCE * abs(gap) for each in sample.gaps)


def _temperature(version: str, reigns: Sequence[ServingInterval]) -> float:
    return next((reign.temperature for reign in reigns if reign.version == version), 0.0)


def loading(loads: Sequence[tuple[float, float]]) -> list[Figure]:
    """How long the operator waited for a load."""
    times = [end - start for start, end in loads]
    if not times:
        return []
    return [
        Figure("load, median s", round(statistics.median(times), 2)),
        Figure("load, longest s", round(max(times), 2)),
    ]


def latency(samples: Sequence[Sample], loads: Sequence[tuple[float, float]]) -> list[Figure]:
    """Milliseconds of the requests that met a load, and of the others: median and 99th percentile."""
    figures = []
    met = [any(each.sent <= end and each.received >= start for start, end in loads) for each in samples]
    for name, wanted in (("during loads", True), ("between loads", False)):
        some = [each for each, during in zip(samples, met, strict=True) if during is wanted]
        times = sorted(1000 * (each.received - each.sent) for each in some)
        if times:
            last = times[min(len(times) - 1, len(times) * 99 // 100)]
            figures.append(Figure(f"latency {name}, p50 ms", round(statistics.median(times), 1)))
            figures.append(Figure(f"latency {name}, p99 ms", round(last, 1)))
    return figures
