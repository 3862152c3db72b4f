"""When requests arrive: a Poisson process, as many independent users make it."""

from __future__ import annotations

import random


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of the arrivals, in seconds from the start, ascending and below `seconds`; the same for the same seed.

    The gaps are exponentially distributed with the mean 1 / `rate`, independent of each other.

    Args:
        rate: arrivals a second on average, positive.
        seconds: length of the schedule.
        seed: of the random numbers.
    """
    numbers = random.Random(seed)
    times: list[float] = []
    now = numbers.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += numbers.expovariate(rate)
    return times
