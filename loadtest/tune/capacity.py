"""Capacity plan: replicas for a given traffic, and the prediction error found by a second run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

TOLERANCE = 0.15
_MEMORY_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class CapacityPlan:
    """Replicas behind a balancer that spreads requests evenly, so that each replica gets random arrivals."""

    rate: float
    """Requests per second that one replica is predicted to hold within the target; positive."""

    confirmed: float
    """The same rate, measured by a second run that reads the settings file."""

    utilisation: float
    """Share of `rate` that a replica is planned for, 0 to 1; the rest is a reserve for peaks."""

    cores: int
    """Cores of a replica, which are those of the measured machine."""

    peak_mib: float
    """Peak resident memory of a replica."""

    @property
    def error(self) -> float:
        """Relative error of the prediction, as a share of the confirmed rate."""
        return abs(self.rate - self.confirmed) / self.confirmed if self.confirmed else math.inf

    @property
    def holds(self) -> bool:
        """True if the second run confirms the prediction."""
        return self.error <= TOLERANCE

    @property
    def memory_mib(self) -> int:
        """MiB of memory to request for a replica."""
        return math.ceil(_MEMORY_MARGIN * self.peak_mib)

    def replicas(self, traffic: float) -> int:
        """Return the replicas for `traffic` requests per second, at least one."""
        return max(1, math.ceil(traffic / (self.utilisation * self.rate)))

    def sentence(self, traffic: float) -> str:
        """Return the plan for a traffic, in words."""
        count = self.replicas(traffic)
        return (
            f"{traffic:g} requests/s need {count} replica{'s' * (count > 1)} of {self.cores} cores and "
            f"{self.memory_mib} MiB, each planned for {self.utilisation:.0%} of the {self.rate:.1f} requests/s that it "
            "holds; with one more replica, one may fail"
        )

    def to_dict(self, traffic: tuple[float, ...]) -> dict[str, Any]:
        """Return the plan and the replicas for each traffic, ready for JSON."""
        table = [{"requests_per_second": each, "replicas": self.replicas(each)} for each in traffic]
        return asdict(self) | {"error": self.error, "memory_mib": self.memory_mib, "traffic": table}
