"""Timing of sequential calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Durations of calls on batches of one size, from pixels in the host's memory to logits there."""

    batch: int
    seconds: tuple[float, ...]
    """Duration of each call."""

    @property
    def p50(self) -> float:
        """Median duration in milliseconds."""
        return 1000 * float(np.quantile(self.seconds, 0.5))

    @property
    def p99(self) -> float:
        """99th percentile of the durations in milliseconds."""
        return 1000 * float(np.quantile(self.seconds, 0.99))

    @property
    def images_per_second(self) -> float:
        """Rate by the mean duration."""
        return self.batch / float(np.mean(self.seconds))


def timed(call: Callable[[], object], batch: int, seconds: float) -> Timing:
    """Repeat a call for `seconds` after a warm-up, at least once.

    Raises:
        Exception: as `call`.
    """
    for _ in range(WARM_UP):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return Timing(batch=batch, seconds=tuple(taken))
