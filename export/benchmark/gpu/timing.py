"""How long calls take, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Calls on batches of one size, from pixels in the host's memory to logits there."""

    batch: int
    seconds: tuple[float, ...]
    """Of each call."""

    @property
    def p50(self) -> float:
        """Median in milliseconds."""
        return 1000 * float(np.quantile(self.seconds, 0.5))

    @property
    def p99(self) -> float:
        """In milliseconds."""
        return 1000 * float(np.quantile(self.seconds, 0.99))

    @property
    def images_per_second(self) -> float:
        """By the mean duration."""
        return self.batch / float(np.mean(self.seconds))


def timed(call: Callable[[], object], batch: int, seconds: float) -> Timing:
    """Call again and again for so many seconds, at least once, after a warm-up.

    Raises:
        Exception: what `call` raised.
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
