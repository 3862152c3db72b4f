"""Drift of the input: a sample of the images that come, compared with the profile of those of the model's proof.

The sample fills one window after the other, and each full window is compared once. So the chance of a false alarm is
that of a window, however often anybody looks at the result.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from models.bundle.drift import MEASURES, Comparison, Counts, Measure, Profile, cells
from models.preprocess.resample import Pixels
from serving.telemetry import catalogue
from serving.telemetry.metrics import Metrics

WINDOW = 500
"""Images that are compared together."""

INTERVAL = 0.02
"""Least time between two images of the sample in seconds: one takes 0.05 ms."""

Logits = np.ndarray[tuple[int, int], np.dtype[np.float32]]


class Drift:
    """Window of one model; every method may be called from any thread.

    Args:
        metrics: receives the result.
        labels: model, version and variant.
        profile: of the pictures of the proof.
        temperature: the model's.
        clock: returns seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        labels: tuple[str, str, str],
        profile: Profile,
        temperature: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._labels = labels
        self._profile = profile
        self._temperature = temperature
        self._clock = clock
        self._next = -math.inf
        self._places: list[Counts] = []
        self._lock = threading.Lock()
        self._result: dict[Measure, Comparison] = {}

    def announce(self) -> None:
        """Show the gauges; NaN until the first window is full."""
        for measure in MEASURES:
            labels = (*self._labels, measure)
            self._metrics.set(catalogue.INPUT_DRIFT, labels, partial(self._distance, measure))
            self._metrics.set(catalogue.INPUT_DRIFT_DETECTED, labels, partial(self._differs, measure))

    def withdraw(self) -> None:
        """Remove the gauges."""
        for measure in MEASURES:
            self._metrics.unset(catalogue.INPUT_DRIFT, (*self._labels, measure))
            self._metrics.unset(catalogue.INPUT_DRIFT_DETECTED, (*self._labels, measure))

    def offer(self, pixels: Sequence[Pixels], logits: Logits) -> None:
        """Sample an image of a batch that the model has run, unless the last one was just now.

        Args:
            pixels: uint8 RGB (S, S, 3) of each image.
            logits: float32 (N, classes).
        """
        now = self._clock()
        if now < self._next:
            return
        self._next = now + INTERVAL
        index = random.randrange(len(pixels))
        row = logits[index : index + 1]
        if np.isfinite(row).all():
            self._add(cells(pixels[index][np.newaxis], row, self._temperature))

    def _add(self, places: Counts) -> None:
        with self._lock:
            self._places.append(places)
            if len(self._places) < WINDOW:
                return
            window, self._places = self._places, []
        classes = len(self._profile.counts["class"])
        self._result = self._profile.compare(Profile.of(np.concatenate(window), classes))

    def _distance(self, measure: Measure) -> float:
        return self._result[measure].distance if self._result else math.nan

    def _differs(self, measure: Measure) -> float:
        return float(self._result[measure].differs) if self._result else math.nan
