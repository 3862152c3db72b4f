"""Warning for a model that may be no better than always answering the most frequent class."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from models.bundle.accuracy import best_known

GUESSING = 2.0
"""Losses above this many times that of equal guesses are no start that is too slow: the weights were driven away."""

GROWN = 1.2
"""Factor on the training loss of the first epoch from which its growth is more than the noise of the batches."""


def warning(training: Mapping[str, Any], *, classes: int) -> str:
    """Return what to say of a finished run whose accuracy does not exceed the baseline for certain; else nothing.

    Args:
        training: the manifest's record, with `config`, `metrics` and `history`.
        classes: number of classes.
    """
    best = best_known(training["metrics"])
    # A bundle of an earlier version has no interval.
    if best is None or best.interval is None or best.majority is None or best.interval[0] > best.majority["value"]:
        return ""
    label, share = best.majority["label"], best.majority["value"]
    if best.value <= share:
        return f"this is no better than always answering {label!r} ({share:.2%}): {_advice(training, classes)}"
    return (
        f"this may be no better than always answering {label!r} ({share:.2%}), which the 95 % interval includes; more "
        f"pictures make it narrower: {_advice(training, classes)}"
    )


def _advice(training: Mapping[str, Any], classes: int) -> str:
    if _rate_too_high(training["history"], classes):
        return (
            "the losses are those of a learning rate that is too high, so train again to another --output, with "
            "--head-lr and --backbone-lr 10 times lower, or without both for the recipe's"
        )
    check = f"python -m training.data --data {shlex.quote(training['config']['data'])} --check --report checked"
    return f"train again to another --output, with more --epochs, or look for wrong labels with `{check}`"


def _rate_too_high(history: list[dict[str, float]], classes: int) -> bool:
    """Return True if the losses are far above those of equal guesses, or the training loss has grown."""
    first, last = history[0], history[-1]
    # Both losses: overfitting raises that of validation alone.
    least = min(last["train_loss"], last["val_loss"])
    return not least <= GUESSING * math.log(classes) or last["train_loss"] > GROWN * first["train_loss"]
