"""Choice among proven variants: the fastest, unless its proof shows a loss and an exact one is nearly as fast."""

from __future__ import annotations

from collections.abc import Mapping

from export.parity.record import ParityRecord

NEARLY = 0.9
"""Share of a lossy variant's speed at which an exact one is chosen instead."""

SIGNIFICANT = 0.05


def best_first(rates: Mapping[str, float], records: Mapping[str, ParityRecord]) -> list[str]:
    """Return the variants of `records` in the order in which they should serve.

    Args:
        rates: variant to images/s; one without a rate comes last.
        records: variant to its passed record.
    """
    left = sorted(records, key=lambda variant: -rates.get(variant, 0.0))
    ordered: list[str] = []
    while left:
        enough = NEARLY * rates.get(left[0], 0.0)
        near = [variant for variant in left if rates.get(variant, 0.0) >= enough]
        chosen = next((variant for variant in near if not loses(records[variant])), left[0])
        ordered.append(chosen)
        left.remove(chosen)
    return ordered


def loses(record: ParityRecord) -> bool:
    """Return True if the proof shows a loss, although it passed.

    With labels: lower accuracy by McNemar's test (p < 0.05), or by more than half of the gate's margin. Without: other
    answers on more than half as many of the decided images as the gate allows.
    """
    figures, gate = record.figures, record.gate
    if accuracy := figures.get("accuracy"):
        lost = accuracy["reference"]["value"] - accuracy["variant"]["value"]
        return bool(lost > 0 and (accuracy["mcnemar_p"] < SIGNIFICANT or lost > gate["accuracy_margin"] / 2))
    if not figures["decided_images"]:
        return False
    return bool(1 - figures["decided_agreement"]["value"] > (1 - gate["min_agreement"]) / 2)
