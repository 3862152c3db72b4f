"""Comparison of a trained network with the one that its training went on from, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.common.statistics import mcnemar_p, rate

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """An added image and what both networks answer."""

    name: str
    label: str
    before: str
    now: str


@dataclass(frozen=True, kw_only=True)
class Against:
    """What the training has changed."""

    name: str
    """Of the bundle that it went on from."""

    version: str

    part: str
    """`test`, or `validation` for data without such a part."""

    held_out: dict[str, Any]
    """Result of `compare`."""

    added: tuple[Row, ...]
    """Added images, which the new network was trained on and the old one was not."""

    def summary(self) -> dict[str, Any]:
        """Return everything but the single images, JSON-ready."""
        return {
            "name": self.name,
            "version": self.version,
            "part": self.part,
            **self.held_out,
            "added": {
                "pictures": len(self.added),
                "right_before": sum(row.before == row.label for row in self.added),
                "right_now": sum(row.now == row.label for row in self.added),
            },
        }


def compare(before: Classes, now: Classes, targets: Classes, labels: tuple[str, ...]) -> dict[str, Any]:
    """Compare the answers of two networks.

    Args:
        before: int64 (N,), classes that the old network answers.
        now: int64 (N,), classes that the new network answers.
        targets: int64 (N,), the right classes.
        labels: names of the classes.

    Returns:
        JSON-ready: `pictures`, the rates `before` and `now` with 95 % intervals, their `difference`, `mcnemar_p`, and
        for each class that occurs its images and how many both have right.
    """
    old, new = before == targets, now == targets
    return {
        "pictures": len(targets),
        "before": rate(int(old.sum()), len(targets)),
        "now": rate(int(new.sum()), len(targets)),
        "difference": float(new.mean() - old.mean()),
        "mcnemar_p": mcnemar_p(int((old & ~new).sum()), int((~old & new).sum())),
        "classes": [
            {
                "label": label,
                "images": int(mine.sum()),
                "before": int(old[mine].sum()),
                "now": int(new[mine].sum()),
            }
            for index, label in enumerate(labels)
            if (mine := targets == index).any()
        ],
    }


def in_words(summary: dict[str, Any]) -> str:
    """Return the comparison of a `summary` in one sentence."""
    before, now, added = summary["before"], summary["now"], summary["added"]
    text = (
        f"against {summary['name']} on the same {summary['pictures']:,} {summary['part']} pictures: {now['value']:.2%} "
        f"instead of {before['value']:.2%}, {100 * summary['difference']:+.2f} points, McNemar's p = "
        f"{summary['mcnemar_p']:.2g}"
    )
    if added["pictures"]:
        text += (
            f"; right on {added['right_now']:,} of the {added['pictures']:,} added pictures, before on "
            f"{added['right_before']:,}"
        )
    return text
