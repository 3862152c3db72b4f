"""GPU utilisation while a named task runs, sampled in a thread."""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType

PERIOD = 0.1
"""Seconds between two samples."""


class GpuUtilization:
    """Context in which a thread samples the utilisation of a GPU.

    Args:
        percent: returns NVML's utilisation, 0 to 100; None without a GPU.
    """

    def __init__(self, percent: Callable[[], float] | None) -> None:
        self.task = ""
        """Name of the running task; empty to discard the samples."""
        self._percent = percent
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> None:
        if self._percent is not None:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def mean(self, task: str) -> float | None:
        """Return the mean utilisation during the task, 0 to 1; None without samples."""
        samples = self._samples.get(task)
        return statistics.fmean(samples) / 100 if samples else None

    def _sample(self) -> None:
        while self._percent is not None and not self._stop.wait(PERIOD):
            task = self.task
            try:
                percent = self._percent()
            # NVML raises many types of errors: the measurement continues without the utilisation.
            except Exception:
                return
            if task:
                self._samples[task].append(percent)
