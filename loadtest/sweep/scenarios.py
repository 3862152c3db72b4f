"""The four scenarios of MLPerf Inference, over HTTP and in seconds rather than minutes: these are no MLPerf results.

SingleStream: one picture, the next when it is answered; the 90th percentile counts. MultiStream: the same with eight
pictures a request, 99th percentile. Server: random arrivals, the highest rate whose 99th percentile holds the target.
Offline: everything is there at once, pictures a second count.
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
    """SingleStream, MultiStream or Offline."""

    name: str
    clients: int
    pictures: int
    """In a request."""

    level: Level

    @property
    def images_per_second(self) -> float:
        """Pictures answered rightly a second."""
        return self.level.achieved * self.pictures

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "clients": self.clients,
            "pictures": self.pictures,
            "images_per_second": self.images_per_second,
            **self.level.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class ServerScenario:
    """Rising rates."""

    levels: Sequence[Level]
    """By rate; a rate that broke is there twice, because it got a second chance."""

    highest: float
    """Requests a second of the highest rate that held the target; 0: none did."""


def closed(probe: Probe, subject: Subject, name: str) -> ClosedScenario:
    """Measure SingleStream, MultiStream or Offline."""
    clients = OFFLINE_CLIENTS if name == "Offline" else 1
    pictures = {"SingleStream": 1, "MultiStream": MULTI_STREAM, "Offline": OFFLINE_BATCH}[name]
    target = subject.single() if pictures == 1 else subject.batch(pictures)
    return ClosedScenario(name=name, clients=clients, pictures=pictures, level=probe.closed(target, clients))


def server(measure: Callable[[float], Level], rates: Sequence[float], target_ms: float) -> ServerScenario:
    """Measure rates one after the other until one breaks the target twice, and then between that and the one before.

    Args:
        measure: one rate.
        rates: ascending.
        target_ms: for the 99th percentile.
    """
    levels: list[Level] = []

    def holds(rate: float) -> bool:
        for _ in range(2):
            levels.append(measure(rate))
            if levels[-1].holds(PERCENT["Server"], target_ms):
                return True
        return False

    low, broken = 0.0, 0.0
    for rate in rates:
        if not holds(rate):
            broken = rate
            break
        low = rate
    for _ in range(_REFINEMENTS if low and broken else 0):
        middle = (low + broken) / 2
        low, broken = (middle, broken) if holds(middle) else (low, middle)
    return ServerScenario(levels=sorted(levels, key=lambda level: level.offered), highest=low)


def rising(capacity: float) -> list[float]:
    """Rates from a tenth of what a closed loop reaches to half as much again."""
    return [capacity * step / _STEPS for step in range(1, _MOST_STEPS + 1)]
