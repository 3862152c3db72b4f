"""Shadow parity: the FP32 reference classifies a share of the live images again while the service is idle.

The proof of a variant holds for the images of the proof; the shadow shows if it also holds for live images. As in the
proof, images on which the reference is undecided count apart. Off by default (HALFTONE_SHADOW=0). If it is on, each
image costs one random number, and a sampled image also a copy.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from export.parity.metrics import is_decided
from export.parity.record import UnprovenError, check_runtime, proof
from export.runtime import Logits, Pixels, Runtime
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.statistics import softmax
from serving.process.idle_work import IdleWork
from serving.telemetry.shadow_metrics import Comparison, ComparisonRecorder

logger = logging.getLogger("bentoml.halftone")

REFERENCES = ("onnxruntime-fp32", "openvino-fp32")
"""Variants in place of the FP32 reference of the proof, which needs torch: a server does not have it."""


class _Sample(NamedTuple):
    pixels: Pixels
    logits: Logits


def check_reference(bundle: Bundle, variant: str) -> None:
    """Refuse a bundle without a proven FP32 variant other than `variant`; deserialise nothing.

    Raises:
        HalftoneError: the bundle has no such variant.
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


def load_reference(bundle: Bundle, variant: str) -> Runtime:
    """Load the FP32 variant to compare `variant` with, on one thread.

    Raises:
        HalftoneError: the bundle has no other proven FP32 variant that runs here.
    """
    reasons = []
    for reference in _others(variant):
        try:
            record = proof(bundle, reference)
            runtime = load(bundle, reference, threads=1, streams=1)
            check_runtime(record, runtime.version(), runtime.executed_as, bundle.name)
            return runtime
        except HalftoneError as error:
            reasons.append(str(error))
    raise _missing(bundle, variant, reasons)


def _others(variant: str) -> list[str]:
    return [reference for reference in REFERENCES if reference != variant]


def _missing(bundle: Bundle, variant: str, reasons: list[str]) -> UnprovenError:
    other = f" other than {variant}" if variant else ""
    name = bundle.name
    return UnprovenError(f"HALFTONE_SHADOW needs a proven FP32 variant of {name}{other}: {'; '.join(reasons)}")


class Shadow:
    """Comparison with the reference, in a thread of the lowest priority.

    Args:
        reference: the FP32 variant.
        share: share of the images to compare, 0 to 1.
        idle: returns True if the service has no other work now.
        temperature: calibrates the probabilities.
        recorder: receives the results.
        disagreed: receives the pixels and logits of an image on which the reference gives another class.
    """

    def __init__(
        self,
        reference: Runtime,
        *,
        share: float,
        idle: Callable[[], bool],
        temperature: float,
        recorder: ComparisonRecorder,
        disagreed: Callable[[Pixels, Logits], object] = lambda pixels, logits: None,
    ) -> None:
        self.recorder = recorder
        self._disagreed = disagreed
        self._reference = reference
        self._share = share
        self._temperature = temperature
        self._failed = False
        self._work = IdleWork(self._compare_or_log, idle=idle, dropped=lambda: recorder.ended("dropped"), name="shadow")
        self._work.start()

    def offer(self, pixels: Sequence[Pixels], logits: Logits) -> None:
        """Sample images of a batch that the model has run; called in the model's threads, and does not block.

        Args:
            pixels: uint8 RGB (S, S, 3) of each image.
            logits: float32 (N, classes).
        """
        for image, row in zip(pixels, logits, strict=True):
            if random.random() < self._share:
                # Copied: views would keep the memory of the whole request.
                self._work.put(lambda image=image, row=row: _Sample(image.copy(), row.copy()), image.nbytes)  # type: ignore[misc]

    def drop(self) -> None:
        """Drop the waiting samples, because the model is no longer active."""
        self._work.drop()

    def close(self) -> None:
        """End the thread, drop the waiting samples, and free the reference."""
        self._work.close()
        self.__dict__.pop("_reference", None)

    def _compare_or_log(self, sample: _Sample) -> None:
        try:
            self._compare(sample)
        # The thread must survive it.
        except Exception:
            self.recorder.ended("failed")
            if not self._failed:
                logger.exception("the FP32 reference failed on an image; further failures are only counted")
            self._failed = True

    def _compare(self, sample: _Sample) -> None:
        (reference,) = self._reference.run(sample.pixels[np.newaxis])
        if not (np.isfinite(sample.logits).all() and np.isfinite(reference).all()):
            self.recorder.ended("disagree")
            return
        result = self._result(sample.logits, reference)
        if result == "disagree":
            self._disagreed(sample.pixels, sample.logits)
        self.recorder.compared(result, delta=float(np.abs(sample.logits - reference).max()))

    def _result(self, logits: Logits, reference: Logits) -> Comparison:
        if not is_decided(softmax(reference[np.newaxis], self._temperature)).all():
            return "undecided"
        return "agree" if logits.argmax() == reference.argmax() else "disagree"
