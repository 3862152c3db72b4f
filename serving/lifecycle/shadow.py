"""Shadow parity: a share of the live pictures is classified again by the FP32 reference, while nothing else is to do.

The proof of a variant holds for the pictures that it was proved on; this tells whether it holds for those that come.
Off by default (HALFTONE_SHADOW=0). Where it is on, a picture costs one random number more, and a sampled one a copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from export.parity.record import UnprovenError, check_runtime, proof
from export.runtime import Logits, Pixels, Runtime
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from serving.telemetry.shadow_metrics import ComparisonRecorder

logger = logging.getLogger("bentoml.halftone")

REFERENCES = ("onnxruntime-fp32", "openvino-fp32")
"""Variants that stand for the FP32 reference of the proof: it needs torch, which is no part of a server."""

MOST_WAITING = 64
"""Sampled pictures that may wait for idle time (10 MB); further ones are dropped and counted."""

_LOOK_AGAIN = 0.01
_NICE = 19


class _Sample(NamedTuple):
    pixels: Pixels
    logits: Logits


def check_reference(bundle: Bundle, variant: str) -> None:
    """Refuse a bundle without a proven FP32 variant beside `variant`; nothing is deserialised.

    Raises:
        HalftoneError: there is none.
    """
    reasons = []
    for reference in _others(variant):
        try:
            proof(bundle, reference)
        except HalftoneError as error:
            reasons.append(str(error))
        else:
            return
    raise _missing(bundle, variant, reasons)


def open_reference(bundle: Bundle, variant: str) -> Runtime:
    """The FP32 variant to hold `variant` against, on one thread.

    Raises:
        HalftoneError: the bundle has no other proven one that runs here.
    """
    reasons = []
    for reference in _others(variant):
        try:
            record = proof(bundle, reference)
            runtime = load(bundle, reference, threads=1, streams=1)
            check_runtime(record, runtime.version(), runtime.executed_as, bundle.manifest.name)
            return runtime
        except HalftoneError as error:
            reasons.append(str(error))
    raise _missing(bundle, variant, reasons)


def _others(variant: str) -> list[str]:
    return [reference for reference in REFERENCES if reference != variant]


def _missing(bundle: Bundle, variant: str, reasons: list[str]) -> UnprovenError:
    beside = f" beside {variant}" if variant else ""
    name = bundle.manifest.name
    return UnprovenError(f"HALFTONE_SHADOW needs a proven FP32 variant of {name}{beside}: {'; '.join(reasons)}")


class Shadow:
    """Compares in a thread of its own, of the lowest priority.

    Args:
        reference: the FP32 variant.
        share: of the pictures, 0 to 1.
        idle: whether nothing else is to be done now.
        temperature: that calibrates the probabilities.
        recorder: is told what comes of it.
    """

    def __init__(
        self,
        reference: Runtime,
        *,
        share: float,
        idle: Callable[[], bool],
        temperature: float,
        recorder: ComparisonRecorder,
    ) -> None:
        self.recorder = recorder
        self._reference = reference
        self._share = share
        self._idle = idle
        self._temperature = temperature
        self._waiting: deque[_Sample] = deque()
        self._wake = threading.Event()
        self._closed = False
        self._failed = False
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, pixels: Sequence[Pixels], logits: Logits) -> None:
        """A batch was answered; called from the model's threads, and returns at once.

        Args:
            pixels: uint8 RGB (S, S, 3) of each picture.
            logits: float32 (N, classes).
        """
        for picture, row in zip(pixels, logits, strict=True):
            if random.random() >= self._share:
                continue
            if len(self._waiting) >= MOST_WAITING:
                self.recorder.ended("dropped")
                continue
            try:
                # What they are views of may be a whole request, which must not live on.
                self._waiting.append(_Sample(picture.copy(), row.copy()))
            except MemoryError:
                # The answer is there, and must not fail for this.
                self.recorder.ended("dropped")
            self._wake.set()

    def drop(self) -> None:
        """Forget what waits: the model answers no more."""
        self._waiting.clear()

    def close(self) -> None:
        """End the thread, drop what waits, and free the reference."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        self._waiting.clear()
        self.__dict__.pop("_reference", None)

    def _work(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                # On Linux each thread has a priority of its own.
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            while self._waiting and not self._closed:
                if not self._idle():
                    time.sleep(_LOOK_AGAIN)
                    continue
                # They may have been dropped meanwhile.
                with contextlib.suppress(IndexError):
                    self._try(self._waiting.popleft())

    def _try(self, sample: _Sample) -> None:
        try:
            self._compare(sample)
        # The thread must live on.
        except Exception:
            self.recorder.ended("failed")
            if not self._failed:
                logger.exception("the FP32 reference failed on a picture; this is said once")
            self._failed = True

    def _compare(self, sample: _Sample) -> None:
        (reference,) = self._reference.run(sample.pixels[np.newaxis])
        if not (np.isfinite(sample.logits).all() and np.isfinite(reference).all()):
            self.recorder.ended("disagree")
            return
        exponents = np.exp((sample.logits - sample.logits.max()) / self._temperature)
        self.recorder.compared(
            agree=bool(sample.logits.argmax() == reference.argmax()),
            delta=float(np.abs(sample.logits - reference).max()),
            mean=float(sample.pixels.mean()),
            variance=float(sample.pixels.var()),
            confidence=float(exponents.max() / exponents.sum()),
        )
