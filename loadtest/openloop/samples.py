"""Input and output of the load generator: plain values that go between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server and the requests for it."""

    host: str
    port: int
    requests: Sequence[bytes]
    """Whole HTTP requests, sent in turn."""

    expected: Sequence[tuple[int, ...]]
    """For each request the right class index of each picture in it; -1: any class counts as right."""

    answer: str
    """Regular expression whose group is the class index of a picture in the body of a response."""

    @property
    def pictures(self) -> int:
        """Pictures in a request."""
        return len(self.expected[0])


@dataclass(frozen=True)
class Sample:
    """One request; times in seconds from the start of the run."""

    intended: float
    """Intended time of sending; in a closed loop the real one."""

    sent: float
    done: float
    status: int
    """HTTP status; 0: there was no response."""

    right: bool
    """True if the status is 200 and the classes are the expected ones."""

    @property
    def latency(self) -> float:
        """Seconds from the intended time of sending to the last byte of the response."""
        return self.done - self.intended


@dataclass(frozen=True, kw_only=True)
class Run:
    """All requests of a run."""

    samples: Sequence[Sample]
    """In the order of the intended times."""

    cpu_share: float
    """Share of one core that the generator used."""

    unsent: int = 0
    """Requests that found no connection within the limit; they count as failed."""
