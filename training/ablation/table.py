"""Tables of an ablation: JSON-ready figures, text and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from models.common.statistics import rate
from models.common.text import markdown_table
from training.ablation.effect import METHOD, paired_effect
from training.ablation.runs import Result
from training.ablation.tricks import Trick

HEADINGS = ("trick", "change", "brings", "95 % interval", "s an epoch", "costs")


def figures(recipe: Sequence[Result], tricks: Mapping[str, Sequence[Result]], known: Sequence[Trick]) -> dict[str, Any]:
    """Return the figures as JSON-ready values.

    Args:
        recipe: results of the recipe, by seed.
        tricks: by the trick's name, results of the recipe without it, or with it where it was put in.
        known: the tricks, in the order of the rows.
    """
    base, seconds = _right(recipe), _seconds(recipe)
    shares = [float(row.mean()) for row in base]
    return {
        "recipe": {
            # The pictures are the same for each seed: their number, not that of all answers, is what was drawn.
            "top1": rate(float(base.mean()) * base.shape[1], base.shape[1]),
            "by_seed": shares,
            "seconds_per_epoch": seconds,
        },
        "tricks": [_row(trick, base, seconds, tricks[trick.name]) for trick in known],
        "method": METHOD,
    }


def _row(trick: Trick, base: Any, seconds: float, results: Sequence[Result]) -> dict[str, Any]:
    other, out = _right(results), trick.change == "taken out"
    effect = paired_effect(base, other) if out else paired_effect(other, base)
    own = _seconds(results)
    return {
        "name": trick.name,
        "change": trick.change,
        "words": trick.words,
        "top1": float(other.mean()),
        "brings": asdict(effect),
        "seconds_per_epoch": own,
        "costs_seconds": seconds - own if out else own - seconds,
    }


def _right(results: Sequence[Result]) -> Any:
    return np.stack([result.right for result in results])


def _seconds(results: Sequence[Result]) -> float:
    return float(np.median([result.seconds_per_epoch for result in results]))


def markdown(document: dict[str, Any]) -> str:
    """Return the report as Markdown, from the document that is written as JSON."""
    top1, rows = document["recipe"]["top1"], [_cells(row) for row in document["tricks"]]
    seeds = ", ".join(f"{share:.1%}" for share in document["recipe"]["by_seed"])
    return "\n\n".join(
        [
            f"# Ablation of the recipe {document['recipe_name']}",
            f"{document['model']} from {document['weights']} weights on {document['data']}: {document['train']:,} "
            f"training pictures, {document['epochs']} epochs at {document['size']} px. The recipe has "
            f"{top1['value']:.1%} (95 % interval {top1['low']:.1%} to {top1['high']:.1%}; by seed {seeds}) on the "
            f"{document['val']:,} validation pictures, which chose each run's epoch, and "
            f"{document['recipe']['seconds_per_epoch']:.1f} s an epoch.",
            markdown_table(HEADINGS, rows, right=(2, 3, 4, 5)),
            f"`brings`: percentage points more with the trick than without. {document['method']}. "
            f"{document['seeds']} seed(s), the same pictures for each. `costs`: seconds more an epoch with it.",
            f"{document['host']['cpu']}, {document['host']['cores']} cores, {document['date']}",
        ]
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    effect = row["brings"]
    return (
        f"{row['name']} ({row['words']})",
        row["change"],
        f"{100 * effect['value']:+.1f}",
        f"{100 * effect['low']:+.1f} to {100 * effect['high']:+.1f}",
        f"{row['seconds_per_epoch']:.1f}",
        f"{row['costs_seconds']:+.1f}",
    )
