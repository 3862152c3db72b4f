"""Notes of the report: how its figures were measured."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.compare.reference import Reference
from loadtest.compare.rounds import ComparisonPlan, PeerResult

_COMFORTABLE = 0.8
"""Share of the generator's own limit below which the generator does not bound a server's rate."""


def notes(
    plan: ComparisonPlan, expected: Reference, results: Sequence[PeerResult], *, generator: str, ceiling: float
) -> list[str]:
    """Return the sentences below the table.

    Args:
        plan: peers, clients and images of the run.
        expected: right class of each image.
        results: measurements of the run.
        generator: name of the load generator.
        ceiling: requests per second of the generator against a server that does nothing.
    """
    return [
        "Rates are medians of the rounds, with the lowest and highest; ratios are taken within a round, for each "
        f"number of clients ({', '.join(map(str, plan.clients))}), and are medians too.",
        _ties(plan.rounds),
        _bottleneck(results, generator, ceiling),
        f"Right classes: {expected.origin}; {len(plan.pictures)} pictures, {len(expected.undecided)} left out as "
        "undecided.",
        "Every server receives the same photos and resizes them in the same way; all use the repository's decoder "
        "except BentoML's typed API, which decodes with Pillow.",
        "Latencies are those of responses with 200, from the first byte sent to the last one received. A picture "
        "counts as same top-1 only if every response to it had the right class.",
        "Peak RSS is the sum of the peaks of all processes of a server; shared pages count in each. PSS is their "
        "memory at the end of the load with shared pages counted once. CPU ms a request is the processor time of all "
        "of them, and so the CPU seconds for 1,000 requests.",
    ]


def _ties(rounds: int) -> str:
    if rounds < 2:
        return "With one round nothing tells a difference from noise: measure more with --rounds."
    return (
        f"A ratio is a tie if its 95 % interval over the {rounds} rounds (Student's t of the logarithms) contains 1: "
        "these rounds can't tell the two servers apart, more of them with --rounds may."
    )


def _bottleneck(results: Sequence[PeerResult], generator: str, ceiling: float) -> str:
    rounds = [cells for result in results if not result.peer.loop for cells in result.cells]
    fastest = max((cell.rate for cells in rounds for cell in cells.values()), default=0.0)
    share = fastest / ceiling if ceiling else 1.0
    verdict = "it was not the bottleneck" if share < _COMFORTABLE else "it may have limited the fastest rows"
    return (
        f"Generator: {generator}, on the same cores as the servers; against a server that does nothing it makes "
        f"{ceiling:.0f} requests/s, and the fastest row {share:.0%} of that: {verdict}."
    )
