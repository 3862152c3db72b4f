"""The smallest part of a list that is still enough, found by halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")


def smallest(items: Sequence[Item], enough: Callable[[list[Item]], bool], *, trials: int) -> list[Item]:
    """A part of `items` that is enough and, with trials to spare, of which no item can be left out.

    Delta debugging (Zeller and Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing Input", ddmin): try each
    of two halves alone, then all but each of them, then with finer pieces.

    Args:
        items: they are enough together; this is not tried.
        enough: tells whether a part is.
        trials: how often `enough` may be asked.
    """
    kept, pieces = list(items), 2
    while len(kept) > 1 and trials > 0:
        parts = _parts(kept, pieces)
        # With two pieces, all but one of them is the other.
        options = parts if pieces == 2 else parts + [_without(kept, part) for part in parts]
        for option in options[:trials]:
            trials -= 1
            if enough(option):
                pieces = 2 if option in parts else max(pieces - 1, 2)
                kept = option
                break
        else:
            if pieces >= len(kept):
                break
            pieces = min(2 * pieces, len(kept))
    return kept


def _parts(items: list[Item], pieces: int) -> list[list[Item]]:
    edges = [index * len(items) // pieces for index in range(pieces + 1)]
    return [items[start:end] for start, end in pairwise(edges)]


def _without(items: list[Item], part: list[Item]) -> list[Item]:
    return [item for item in items if item not in part]
