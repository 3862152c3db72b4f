"""The highest rate that holds a latency target."""

from __future__ import annotations

from collections.abc import Callable

_FIRST = 0.8
_UP, _DOWN = 1.15, 0.7
_HOPELESS, _ENDLESS = 0.02, 20


def highest_rate(holds: Callable[[float], bool], capacity: float, *, resolution: float) -> float:
    """The highest rate that holds, to within a share `resolution` of it; 0 where not even a fiftieth of capacity does,
    and the last one that was tried where twenty times the capacity does too.

    Chance breaks a level now and then, so a rate is given up only when it broke twice.

    Args:
        holds: measures one rate.
        capacity: requests a second of a closed loop, near which the answer is expected.
        resolution: such as 0.03.
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
    return low


def _next(low: float, high: float) -> float:
    if not high:
        return _UP * low
    return (low + high) / 2 if low else _DOWN * high
