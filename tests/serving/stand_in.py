"""A runtime without a model, for tests of the code around it."""

import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from export.parity.record import proof
from export.runtime import Pixels, Runtime
from models.bundle.bundle import Bundle
from models.bundle.drift import Profile
from models.preprocess.decode import MAX_PIXELS
from serving.batching.cost_model import AlwaysUpTo
from serving.lifecycle.served_model import ServedModel
from serving.telemetry.recorder import Recorder


class StandIn(Runtime):
    """Runtime that classifies every picture as class 0.

    Args:
        held: wait in every run until the event `held` is set.
        fails_on_dark: raise an error for a batch with a black picture.
    """

    name: ClassVar[str] = "stand-in"
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)

    def __init__(self, *, held: bool = False, fails_on_dark: bool = False) -> None:
        self.shape = (224, 224, 3)
        self.classes = 1000
        self.precision, self.streams = "fp32", 64
        self.entered = threading.Semaphore(0)
        self.held = threading.Event()
        self.pictures = 0
        self._fails_on_dark = fails_on_dark
        if not held:
            self.held.set()

    @classmethod
    def source(cls, precision: str) -> str:
        return "model.fp32.onnx"

    @classmethod
    def version(cls) -> str:
        return "1"

    @property
    def executed_as(self) -> str:
        return "nothing"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        pass

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        self.entered.release()
        self.held.wait()
        self.pictures += len(pixels)
        if self._fails_on_dark and not pixels.any(axis=(1, 2, 3)).all():
            raise ValueError("too dark")
        logits = np.zeros((len(pixels), self.classes), np.float32)
        logits[:, 0] = 9
        return logits


def stand_in_model(
    artifacts: Path,
    name: str,
    runtime: Runtime,
    *,
    batch: int = 1,
    threads: int = 2,
    recorder: Recorder | None = None,
    reference: Runtime | None = None,
    profile: Profile | None = None,
) -> ServedModel:
    """Return a model with the default bundle's labels and proof in front of another runtime."""
    bundle = Bundle.open(artifacts / "efficientnet_lite0")
    return ServedModel(
        name,
        bundle.manifest,
        runtime,
        proof(bundle, "onnxruntime-fp32"),
        sizes=AlwaysUpTo(batch),
        threads=threads,
        streams=threads,
        capacity=100,
        max_pixels=MAX_PIXELS,
        recorder=recorder or Recorder(),
        reference=reference,
        profile=profile,
    )
