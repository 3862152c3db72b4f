"""What a reader of the report has to know about how its figures came about."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.compare.reference import Reference
from loadtest.compare.rounds import Plan, Result

_COMFORTABLE = 0.8
"""Share of the generator's own limit below which the servers' figures are taken to be theirs."""


def notes(plan: Plan, known: Reference, results: Sequence[Result], *, generator: str, ceiling: float) -> list[str]:
    """Sentences for below the table.

    Args:
        plan: what was to be done.
        known: the right answers.
        results: what was measured.
        generator: its name.
        ceiling: requests a second that it makes against a server that does nothing.
    """
    return [
        "Rates are medians of the rounds, with the lowest and highest; ratios are taken within a round, for each "
        f"number of clients ({', '.join(map(str, plan.clients))}), and are medians too.",
        _bottleneck(results, generator, ceiling),
        f"Right answers: {known.origin}; {len(plan.pictures)} pictures, {len(known.undecided)} set aside as undecided.",
        "Every server gets the same photos and resizes them in the same way; all decode with the repository's decoder "
        "but BentoML's typed API, which hands over pictures that Pillow has decoded.",
        "Latencies are of the answers with 200, from the first byte sent to the last one received. A picture counts as "
        "the same top-1 only where every answer to it was right.",
        "Peak RSS adds up the peaks of all processes of a server, shared pages counted in each.",
    ]


def _bottleneck(results: Sequence[Result], generator: str, ceiling: float) -> str:
    served = [cells for result in results if not result.peer.loop for cells in result.cells]
    fastest = max((cell.rate for cells in served for cell in cells.values()), default=0.0)
    share = fastest / ceiling if ceiling else 1.0
    verdict = "it was not the bottleneck" if share < _COMFORTABLE else "it may have held the fastest rows back"
    return (
        f"Generator: {generator}, on the same cores as the servers; against one that does nothing it makes "
        f"{ceiling:.0f} requests/s, and the fastest row {share:.0%} of that: {verdict}."
    )
