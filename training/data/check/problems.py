"""What the inspection says of each image, in words; the order of urgency is that of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from training.data.check.duplicates import Place, label, parts
from training.data.check.inspection import Inspection
from training.data.check.table import Verdict
from training.data.pictures import Data


@dataclass(frozen=True, kw_only=True)
class Doublet:
    """Two equal or near images."""

    first: Place
    second: Place

    kind: str
    """`equal` or `near`."""

    conflict: str
    """`two labels`, `two parts`, or empty."""


def verdicts(data: Data, inspection: Inspection) -> dict[Place, Verdict]:
    """Return what was found of each image that has a problem."""
    found: dict[Place, Verdict] = defaultdict(Verdict)
    for place in inspection.reading.broken:
        found[place].problems.append("broken")
    for doublet in doublets(data, inspection):
        names = [f"{part}/{parts(data)[part].name(index)}" for part, index in (doublet.first, doublet.second)]
        conflict = f" under {doublet.conflict}" if doublet.conflict == "two labels" else ""
        conflict = conflict or (" in two parts" if doublet.conflict else "")
        found[doublet.first].problems.append(f"{doublet.kind} to {names[1]}{conflict}")
        found[doublet.second].problems.append(f"{doublet.kind} to {names[0]}{conflict}")
    judgement, labels = inspection.judgement, data.train.labels
    for index in map(int, judgement.wrong):
        verdict = found[inspection.places[index]]
        verdict.problems.append(f"label probably wrong (odds {judgement.odds[index]:.0f} to 1)")
        verdict.suggested = labels[judgement.suggested[index]]
    for index in inspection.outliers:
        found[inspection.places[index]].problems.append("outlier")
    for index, description in inspection.sizes.odd.items():
        found[inspection.places[index]].problems.append(description)
    return dict(found)


def doublets(data: Data, inspection: Inspection) -> list[Doublet]:
    """Return all pairs; those with two labels first, then those in two parts."""
    order = ("two labels", "two parts", "")
    return sorted(_doublets(data, inspection), key=lambda each: (order.index(each.conflict), each.kind != "equal"))


def _doublets(data: Data, inspection: Inspection) -> Iterator[Doublet]:
    everything = parts(data)
    for kind, pairs in (("equal", inspection.equal), ("near", inspection.near)):
        for pair in pairs:
            first, second = (inspection.places[index] for index in pair)
            conflict = "two parts" if first[0] != second[0] else ""
            if label(everything, first) != label(everything, second):
                conflict = "two labels"
            yield Doublet(first=first, second=second, kind=kind, conflict=conflict)
