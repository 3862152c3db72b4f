"""How many replicas a traffic needs, and whether a second run confirms what the plan builds on."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

TOLERANCE = 0.15
_MEMORY_MARGIN = 1.25


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Replicas behind a balancer that spreads the requests evenly: each gets random arrivals of its own share."""

    rate: float
    """Requests a second that one replica is predicted to hold within the target; positive."""

    confirmed: float
    """The same, found by a second run that reads the settings file."""

    utilisation: float
    """Share of that rate that a replica is planned for, 0 to 1; the rest is for peaks."""

    cores: int
    """Of a replica: of the machine that was measured."""

    peak_mib: float
    """Resident memory of a replica at its peak."""

    @property
    def error(self) -> float:
        """By how much the prediction is off, as a share of what was confirmed."""
        return abs(self.rate - self.confirmed) / self.confirmed if self.confirmed else math.inf

    @property
    def holds(self) -> bool:
        """Whether the second run confirms the prediction."""
        return self.error <= TOLERANCE

    @property
    def memory_mib(self) -> int:
        """To request for a replica."""
        return math.ceil(_MEMORY_MARGIN * self.peak_mib)

    def replicas(self, traffic: float) -> int:
        """For this many requests a second, at least one."""
        return max(1, math.ceil(traffic / (self.utilisation * self.rate)))

    def sentence(self, traffic: float) -> str:
        """The plan for a traffic, in words."""
        count = self.replicas(traffic)
        return (
            f"{traffic:g} requests/s need {count} replica{'s' * (count > 1)} of {self.cores} cores and "
            f"{self.memory_mib} MiB, each planned for {self.utilisation:.0%} of the {self.rate:.1f} requests/s that it "
            "holds; one more replica lets one fail"
        )

    def to_dict(self, traffic: tuple[float, ...]) -> dict[str, Any]:
        """JSON-ready."""
        table = [{"requests_per_second": each, "replicas": self.replicas(each)} for each in traffic]
        return asdict(self) | {"error": self.error, "memory_mib": self.memory_mib, "traffic": table}
