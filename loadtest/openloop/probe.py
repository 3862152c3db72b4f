"""Measurements of one server: warmed up first, each with a ramp that isn't counted."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from loadtest.openloop.level import Level, level, throughput
from loadtest.openloop.process import Generator
from loadtest.openloop.samples import Target

WARM_UP_CLIENTS = 8
_WINDOWS, _WARM = 8, 0.05
_RAMP_SHARE, _LONGEST_RAMP = 0.2, 1.0
_FEW_REQUESTS, _LONGER = 400, 2


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Throughput of the server before it was measured."""

    rates: tuple[float, ...]
    """Requests a second in one window after the other."""

    steady: bool
    """True if the last two windows are within 5 %."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measures servers with a load generator.

    Args: see the fields.
    """

    generator: Generator
    seconds: float
    """Length of a measurement, in addition to its ramp."""

    target_ms: float
    """Latency target; drift and lateness are compared with it."""

    seeds: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    """Each open loop takes the next seed for its arrivals."""

    @property
    def ramp(self) -> float:
        """Seconds at the beginning of a measurement that don't count."""
        return min(_RAMP_SHARE * self.seconds, _LONGEST_RAMP)

    def open(self, target: Target, rate: float) -> Level:
        """Measure Poisson arrivals at a rate.

        At a low rate it takes up to twice as long, because a 99th percentile needs hundreds of requests.
        """
        end = self.ramp + min(max(self.seconds, _FEW_REQUESTS / rate), _LONGER * self.seconds)
        run = self.generator.poisson(target, rate=rate, seconds=end, seed=next(self.seeds))
        return level(run, offered=rate, begin=self.ramp, end=end, target_ms=self.target_ms)

    def closed(self, target: Target, clients: int) -> Level:
        """Measure clients that wait for their responses."""
        end = self.ramp + self.seconds
        run = self.generator.closed(target, clients=clients, seconds=end)
        return level(run, offered=0.0, begin=self.ramp, end=end, target_ms=self.target_ms)

    def warm_up(self, target: Target) -> WarmUp:
        """Send requests until two windows in a row have the same rate, or for eight windows."""
        seconds = max(0.3, min(1.0, self.seconds / 3))
        rates: list[float] = []
        while len(rates) < _WINDOWS:
            run = self.generator.closed(target, clients=WARM_UP_CLIENTS, seconds=seconds)
            rates.append(throughput(run.samples, seconds))
            if len(rates) > 1 and abs(rates[-1] - rates[-2]) <= _WARM * max(rates[-2:]):
                return WarmUp(rates=tuple(rates), steady=True)
        return WarmUp(rates=tuple(rates), steady=False)
