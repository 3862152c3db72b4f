"""Learning-rate schedules as pure functions of the global step, which need no state in a checkpoint.

Cosine and restarts: SGDR (Loshchilov and Hutter, arXiv:1608.03983). One-cycle: Smith and Topin (arXiv:1708.07120) in
fastai's form with two cosine halves. Warm-up: linear (Goyal et al., arXiv:1706.02677).
"""

from __future__ import annotations

import math

from training.config.recipe import Schedule

WARMUP_START = 0.01
CYCLE_START, CYCLE_END, CYCLE_RISE = 0.04, 1e-4, 0.3


def factor(config: Schedule, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor on the peak learning rates at a step.

    Args:
        config: shape and warm-up.
        step: global optimiser step, from 0.
        steps_per_epoch: optimiser steps per epoch.
        epochs: length of the run.

    Returns:
        A number in [0, 1].
    """
    total = steps_per_epoch * epochs
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total // 2)
    if config.schedule == "onecycle":
        return _one_cycle(step, warmup or round(CYCLE_RISE * total), total)
    if step < warmup:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup
    after, length = step - warmup, max(1, total - warmup - 1)
    if config.schedule == "step":
        return config.step_factor ** int(after / (config.step_epochs * steps_per_epoch))
    if config.schedule == "cosine":
        return _cosine(min(1.0, after / length), 1.0, config.min_lr_share)
    if config.schedule == "restarts":
        progress = _cycle_progress(after, config.restart_epochs * steps_per_epoch, config.restart_growth)
        return _cosine(progress, 1.0, config.min_lr_share)
    return 1.0


def _cosine(progress: float, start: float, end: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(step: int, rise: int, total: int) -> float:
    if step < rise:
        return _cosine(step / rise, CYCLE_START, 1.0)
    return _cosine(min(1.0, (step - rise) / max(1, total - rise - 1)), 1.0, CYCLE_END)


def _cycle_progress(step: float, length: float, growth: float) -> float:
    """Return the progress within the current cycle, in [0, 1)."""
    while step >= length:
        step, length = step - length, length * growth
    return step / length
