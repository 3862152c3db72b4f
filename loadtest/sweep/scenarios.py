"""The four scenarios of MLPerf Inference, over HTTP and in seconds rather than minutes: these are no MLPerf results.

SingleStream: one image per request, the next one after the response; metric: 90th percentile. MultiStream: the same
with eight images per request; 99th percentile. Server: random arrivals; highest rate whose 99th percentile holds the
target. Offline: all images are available at once; images per second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.openloop.level import Level
from loadtest.openloop.probe import Probe
from loadtest.openloop.target import Subject

MULTI_STREAM = 8
OFFLINE_CLIENTS, OFFLINE_BATCH = 4, 16
NAMES = ("SingleStream", "MultiStream", "Server", "Offline")
PERCENT = {"SingleStream": 90.0, "MultiStream": 99.0, "Server": 99.0}

_STEPS = 10
_MOST_STEPS = 15
_REFINEMENTS = 2


@dataclass(frozen=True, kw_only=True)
class ClosedScenario:
    """Result of SingleStream, MultiStream or Offline."""

    name: str
    clients: int
    pictures: int
    """Images per request."""

    level: Level

    @property
    def images_per_second(self) -> float:
        """Correctly classified images per second."""
        return self.level.achieved * self.pictures

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for the report."""
        return {
            "clients": self.clients,
            "pictures": self.pictures,
            "images_per_second": self.images_per_second,
            **self.level.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class ServerScenario:
    """Result of Server: measurements at rising rates."""

    levels: Sequence[Level]
    """Measurements by rate; a rate that missed the target is listed twice, because it was measured again, and so is the
    highest rate that held it."""

    highest: float
    """Highest rate that held the target and was confirmed, in requests per second; 0: there was none."""


def closed(probe: Probe, subject: Subject, name: str) -> ClosedScenario:
    """Measure SingleStream, MultiStream or Offline."""
    clients = OFFLINE_CLIENTS if name == "Offline" else 1
    pictures = {"SingleStream": 1, "MultiStream": MULTI_STREAM, "Offline": OFFLINE_BATCH}[name]
    target = subject.single() if pictures == 1 else subject.batch(pictures)
    return ClosedScenario(name=name, clients=clients, pictures=pictures, level=probe.closed(target, clients))


def server(measure: Callable[[float], Level], rates: Sequence[float], target_ms: float) -> ServerScenario:
    """Measure rates until one misses the target twice, then refine between that rate and the one before.

    With two chances a rate that is too high holds too often. So the highest one is measured again, with a single
    chance, then the next lower one that held, until one is confirmed.

    Args:
        measure: measures one rate.
        rates: rates in ascending order.
        target_ms: target for the 99th percentile in milliseconds.
    """
    levels: list[Level] = []

    def once(rate: float) -> bool:
        levels.append(measure(rate))
        return levels[-1].holds(PERCENT["Server"], target_ms)

    def holds(rate: float) -> bool:
        return once(rate) or once(rate)

    held, high = [0.0], 0.0
    for rate in rates:
        if not holds(rate):
            high = rate
            break
        held.append(rate)
    for _ in range(_REFINEMENTS if held[-1] and high else 0):
        middle = (held[-1] + high) / 2
        if holds(middle):
            held.append(middle)
        else:
            high = middle
    while held[-1] and not once(held[-1]):
        held.pop()
    return ServerScenario(levels=sorted(levels, key=lambda level: level.offered), highest=held[-1])


def rising(capacity: float) -> list[float]:
    """Return rates from 0.1 to 1.5 times the rate of a closed loop, in steps of a tenth."""
    return [capacity * step / _STEPS for step in range(1, _MOST_STEPS + 1)]
