"""Starts servers with one setting each, and finds the highest rate that they hold."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.openloop.level import Level
from loadtest.openloop.probe import WARM_UP_CLIENTS, Probe
from loadtest.openloop.process import Generator
from loadtest.openloop.rate_search import highest_rate
from loadtest.openloop.target import Subject, meet
from loadtest.reporting.cli import PeerError
from loadtest.servers.catalogue import ours
from loadtest.servers.process import running
from loadtest.tune.search import Held
from loadtest.tune.setting import Setting

PERCENT = 99.0
# What the coarse measurements have of the thorough ones' time, and how much coarser they are.
_COARSE_SECONDS, _COARSER = 0.4, 3
_SHORTEST = 0.5


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where settings are measured."""

    generator: Generator
    pictures: Mapping[str, bytes]
    target_ms: float
    """For the 99th percentile."""

    seconds: float
    """Length of a thorough measurement."""

    resolution: float
    """Share of itself to which the highest rate is found by thorough measurements."""

    say: Callable[[str], None]
    """Told what was found."""

    def measure(self, setting: Setting, thorough: bool) -> Held:
        """What a setting holds; raises PeerError where no server starts with it."""
        return self.held(setting.environment(), str(setting), thorough)

    def held(self, environment: Mapping[str, str], name: str, thorough: bool) -> Held:
        """What a server with these variables holds; raises PeerError where it doesn't start."""
        first = next(iter(self.pictures.values()))
        try:
            with running(ours(**environment), Path(sys.executable), first, "") as server:
                subject = meet(f"http://127.0.0.1:{server.port}", self.pictures)
                rate, levels = self._highest(subject, thorough)
                peak = server.peak_mib()
        except PeerError as error:
            self.say(f"{name}: {error}")
            raise
        self.say(f"{name} ({subject.variant}): {rate:.1f} requests/s{'' if thorough else ' (coarse)'}")
        at_rate = (level.ms(PERCENT) for level in reversed(levels) if level.offered == rate)
        return Held(
            rate=rate,
            p99_ms=next(at_rate, math.nan),
            variant=subject.variant,
            peak_mib=peak,
            client_bound=any(level.client_bound for level in levels),
        )

    def _highest(self, subject: Subject, thorough: bool) -> tuple[float, list[Level]]:
        """The rate, and all levels that were measured."""
        seconds = self.seconds if thorough else max(_SHORTEST, _COARSE_SECONDS * self.seconds)
        resolution = self.resolution if thorough else _COARSER * self.resolution
        probe = Probe(generator=self.generator, seconds=seconds, target_ms=self.target_ms)
        single, levels = subject.single(), list[Level]()

        def holds(rate: float) -> bool:
            levels.append(probe.open(single, rate))
            return levels[-1].holds(PERCENT, self.target_ms)

        probe.warm_up(single)
        if probe.closed(single, 1).ms(50) > self.target_ms:
            # Not even a client who is alone is answered in time.
            return 0.0, levels
        capacity = probe.closed(single, WARM_UP_CLIENTS).achieved
        return highest_rate(holds, capacity, resolution=resolution) if capacity else 0.0, levels
