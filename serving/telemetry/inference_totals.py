"""Totals of one model's inferences since it was loaded, for Triton's statistics (`GET /v2/models/NAME/stats`)."""

from __future__ import annotations

import copy
import threading
import time
from dataclasses import dataclass, field

_NANOSECONDS = 1_000_000_000


@dataclass(slots=True)
class Duration:
    """Number of events, and how long they took together."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, seconds: float, count: int = 1) -> None:
        """Add events that took `seconds` each."""
        self.count += count
        self.nanoseconds += round(seconds * _NANOSECONDS) * count


@dataclass(slots=True)
class Totals:
    """The totals. A request is what a client sent; an image is one item of it."""

    success: Duration = field(default_factory=Duration)
    """Requests with a result for at least one image."""

    fail: Duration = field(default_factory=Duration)
    """Requests without any result, also those whose client left."""

    queue: Duration = field(default_factory=Duration)
    """Images, with the time that they waited."""

    decode: Duration = field(default_factory=Duration)
    """Images, with the time from their bytes to pixels."""

    infer: Duration = field(default_factory=Duration)
    """Images, each with the whole time of the run that it was in."""

    runs: dict[int, Duration] = field(default_factory=dict)
    """Number of images in a run of the model, to those runs."""

    last: float = 0.0
    """Unix time of the last successful request; 0 before the first."""


class InferenceTotals:
    """Keeps the totals; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()

    def ended(self, seconds: float, *, success: bool) -> None:
        """Add a request."""
        with self._lock:
            (self._totals.success if success else self._totals.fail).add(seconds)
            if success:
                self._totals.last = time.time()

    def waited(self, seconds: float) -> None:
        """Add an image that left the queues."""
        with self._lock:
            self._totals.queue.add(seconds)

    def decoded(self, seconds: float) -> None:
        """Add an image that was decoded."""
        with self._lock:
            self._totals.decode.add(seconds)

    def ran(self, seconds: float, images: int) -> None:
        """Add a run of the model."""
        with self._lock:
            self._totals.infer.add(seconds, images)
            self._totals.runs.setdefault(images, Duration()).add(seconds)

    def read(self) -> Totals:
        """Return a copy of the totals, all of the same moment."""
        with self._lock:
            return copy.deepcopy(self._totals)
