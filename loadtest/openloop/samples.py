"""What a generator is asked to do, and what it saw: plain values that go between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Target:
    """A server and what it is asked, in turn."""

    host: str
    port: int
    requests: Sequence[bytes]
    """Whole HTTP requests."""

    expected: Sequence[tuple[int, ...]]
    """The right class indices for each of them, one for each picture in it; -1: any class will do."""

    answer: str
    """Regular expression whose group is the class index of a picture in the body of an answer."""

    @property
    def pictures(self) -> int:
        """Pictures in a request."""
        return len(self.expected[0])


@dataclass(frozen=True)
class Sample:
    """One request; times in seconds from the start of the run."""

    intended: float
    """When it should have been sent; in a closed loop, when it was."""

    sent: float
    done: float
    status: int
    """0: there was no answer."""

    right: bool
    """Answered with 200 and the expected classes."""

    @property
    def latency(self) -> float:
        """Seconds from the intended time of sending to the last byte of the answer."""
        return self.done - self.intended


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the generator saw."""

    samples: Sequence[Sample]
    """In the order of the intended times."""

    cpu_share: float
    """Share of one core that the generator used."""

    unsent: int = 0
    """Requests without a connection to go on, which count as failed."""
