"""Search for the highest request rate that holds a latency target."""

from __future__ import annotations

from collections.abc import Callable

_FIRST = 0.8
_UP, _DOWN = 1.15, 0.7
_HOPELESS, _ENDLESS = 0.02, 20
_LARGEST_STEP = 0.5


def highest_rate(holds: Callable[[float], bool], capacity: float, *, resolution: float) -> float:
    """Return the highest rate that holds, to within a share `resolution` of it.

    Chance breaks a level now and then, so a rate is given up only after it broke twice. With two chances a rate that is
    too high holds too often: the rate that is found has to hold once more, or the next lower one, and so on.

    Args:
        holds: measures one rate.
        capacity: requests a second of a closed loop; the result is expected near it.
        resolution: such as 0.03.

    Returns:
        Requests a second, measured last of all; 0 if not even a fiftieth of `capacity` holds, and the last rate tried
        if twenty times `capacity` holds.
    """
    low, high = 0.0, 0.0
    rate = _FIRST * capacity
    while not high or high - low > resolution * high:
        if holds(rate) or holds(rate):
            low = rate
        else:
            high = rate
        if high and not low and high < _HOPELESS * capacity:
            return 0.0
        if low > _ENDLESS * capacity:
            break
        rate = _next(low, high)
    return _confirmed(holds, low, resolution)


def _confirmed(holds: Callable[[float], bool], rate: float, step: float) -> float:
    """Return the first rate that holds again, downwards in steps that double: a server that has ended is soon known."""
    least = _HOPELESS * rate
    while rate and not holds(rate):
        rate, step = (1 - step) * rate, min(2 * step, _LARGEST_STEP)
        if rate < least:
            return 0.0
    return rate


def _next(low: float, high: float) -> float:
    if not high:
        return _UP * low
    return (low + high) / 2 if low else _DOWN * high
