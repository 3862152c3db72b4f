"""Trials: start a server with a setting and find the highest rate that it holds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.openloop.level import Level
from loadtest.openloop.probe import WARM_UP_CLIENTS, Probe
from loadtest.openloop.rate_search import highest_rate
from loadtest.openloop.target import Subject, meet
from loadtest.reporting.cli import PeerError
from loadtest.servers.catalogue import ours
from loadtest.servers.peer import running
from loadtest.tune.search import Measurement
from loadtest.tune.setting import Setting

PERCENT = 99.0
_COARSE_RESOLUTION = 3
"""Resolution of a coarse search, relative to that of a thorough one."""


@dataclass(frozen=True, kw_only=True)
class TrialRunner:
    """Measures settings of the service."""

    probe: Callable[[bool], Probe]
    """Returns a new probe for thorough (True) or coarse (False) measurements."""

    pictures: Mapping[str, bytes]
    resolution: float
    """Relative resolution of the highest rate in thorough measurements."""

    say: Callable[[str], None]
    """Prints a line of progress."""

    def measure(self, setting: Setting, thorough: bool) -> Measurement:
        """Return the measurement of a setting; raise PeerError if the server doesn't start with it."""
        return self.measure_server(setting.environment(), str(setting), thorough)

    def measure_server(self, environment: Mapping[str, str], name: str, thorough: bool) -> Measurement:
        """Return the measurement of a server with these variables; raise PeerError if it doesn't start."""
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
        return Measurement(
            rate=rate,
            p99_ms=next(at_rate, math.nan),
            variant=subject.variant,
            peak_mib=peak,
            client_bound=any(level.client_bound for level in levels),
        )

    def _highest(self, subject: Subject, thorough: bool) -> tuple[float, list[Level]]:
        """Return the highest rate, and all measured levels."""
        resolution = self.resolution if thorough else _COARSE_RESOLUTION * self.resolution
        probe = self.probe(thorough)
        single, levels = subject.single(), list[Level]()

        def holds(rate: float) -> bool:
            levels.append(probe.open(single, rate))
            return levels[-1].holds(PERCENT, probe.target_ms)

        probe.warm_up(single)
        if probe.closed(single, 1).ms(50) > probe.target_ms:
            # Even a single client gets its responses too late.
            return 0.0, levels
        capacity = probe.closed(single, WARM_UP_CLIENTS).achieved
        return highest_rate(holds, capacity, resolution=resolution) if capacity else 0.0, levels
