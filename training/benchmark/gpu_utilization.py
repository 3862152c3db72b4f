"""How busy a GPU is while something runs."""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType

PERIOD = 0.1


class Busy:
    """A context in which a GPU is asked ten times a second.

    Args:
        percent: the share of the last moments in which the GPU worked, 0 to 100 (NVML's utilisation); None: no GPU.
    """

    def __init__(self, percent: Callable[[], float] | None) -> None:
        self.during = ""
        """What runs now; empty: nothing that counts."""
        self._percent = percent
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if self._percent is not None:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def mean(self, what: str) -> float | None:
        """Share of the time, 0 to 1, in which the GPU worked while this ran; None where nobody knows."""
        samples = self._samples.get(what)
        return statistics.fmean(samples) / 100 if samples else None

    def _watch(self) -> None:
        while self._percent is not None and not self._over.wait(PERIOD):
            during = self.during
            try:
                percent = self._percent()
            # Whatever NVML raises: a figure is missing then, and the measurement goes on.
            except Exception:
                return
            if during:
                self._samples[during].append(percent)
