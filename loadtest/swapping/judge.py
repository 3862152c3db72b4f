"""What a client may have been told at any time, and whether it was."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.swapping.clients import Sample

TOLERANCE = 0.002


@dataclass(frozen=True, kw_only=True)
class Reign:
    """A version in charge."""

    version: str
    """Its name."""

    temperature: float
    """Divides its logits."""

    begun: float
    """When it was asked for, monotonic seconds: no answer of it can be older."""

    done: float
    """When the operator was told that it is in charge: no request sent later may get its predecessor's answer."""


def judge(samples: Sequence[Sample], reigns: Sequence[Reign]) -> dict[str, Any]:
    """Count requests, failures, and answers by a version that could not answer then or that did not make them.

    Args:
        samples: of all clients.
        reigns: in their order; the first began before the clients did.
    """
    good = [sample for sample in samples if not sample.problem]
    # ln(p1 / p2) times the temperature is the difference of two logits: the same for every version of one network.
    gap = statistics.median(sample.gaps[0] * _temperature(sample.version, reigns) for sample in good) if good else 0.0
    wrong = [sample for sample in good if not _allowed(sample, reigns)]
    forged = [sample for sample in good if not _made_by(sample, reigns, gap)]
    problems = Counter(sample.problem for sample in samples if sample.problem)
    return {
        "requests": dict(sorted(Counter(sample.way for sample in samples).items())),
        "failed_requests": len(samples) - len(good),
        "problems": dict(problems.most_common(5)),
        "wrong_version_answers": len(wrong),
        "answers_not_by_their_version": len(forged),
        "versions_seen": len({sample.version for sample in good}),
    }


def _allowed(sample: Sample, reigns: Sequence[Reign]) -> bool:
    """Whether its version was in charge at some moment between the request and the answer."""
    ends = [reign.done for reign in reigns[1:]] + [float("inf")]
    return any(
        reign.version == sample.version and reign.begun <= sample.received and sample.sent <= end
        for reign, end in zip(reigns, ends, strict=True)
    )


def _made_by(sample: Sample, reigns: Sequence[Reign], gap: float) -> bool:
    temperature = _temperature(sample.version, reigns)
    return all(abs(each * temperature - gap) <= TOLERANCE * abs(gap) for each in sample.gaps)


def _temperature(version: str, reigns: Sequence[Reign]) -> float:
    return next((reign.temperature for reign in reigns if reign.version == version), 0.0)


def latency(samples: Sequence[Sample], loads: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds of the requests that met a load, and of the others: median and 99th percentile."""
    figures: dict[str, float] = {}
    during = [
        sample for sample in samples if any(sample.sent <= end and sample.received >= start for start, end in loads)
    ]
    met = set(map(id, during))
    for name, some in (("during_loads", during), ("else", [each for each in samples if id(each) not in met])):
        times = sorted(1000 * (each.received - each.sent) for each in some)
        if times:
            figures[f"{name}_p50_ms"] = round(times[len(times) // 2], 1)
            figures[f"{name}_p99_ms"] = round(times[min(len(times) - 1, len(times) * 99 // 100)], 1)
    return figures
