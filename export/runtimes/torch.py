"""PyTorch in FP32 on the CPU: the reference for all other variants; never used for serving."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from export.runtime import Pixels, Runtime
from models.bundle.bundle import WEIGHTS, Bundle
from models.checkpoint import load_module
from models.graph import ServingGraph

PART = 8
"""Images that are run at once: what passes between the layers for more of them leaves the processor's cache."""


class Torch(Runtime):
    """The bundle's checkpoint with the same graph contract as its exports."""

    name: ClassVar[str] = "torch"
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)

    @classmethod
    def source(cls, precision: str) -> str:
        """Return the checkpoint."""
        return WEIGHTS

    @classmethod
    def version(cls) -> str:
        """Return PyTorch's version without its build tag."""
        return str(torch.__version__).split("+", maxsplit=1)[0]

    @property
    def executed_as(self) -> str:
        """Always FP32 on the CPU."""
        return "fp32 on CPU"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        self._graph = ServingGraph(load_module(bundle), bundle.manifest.input).eval()

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        with torch.inference_mode():
            parts = [self._graph(torch.tensor(pixels[at : at + PART])) for at in range(0, len(pixels), PART)]
            return np.asarray(torch.cat(parts).numpy())


RUNTIME = Torch
