"""The ways to run a bundle on a GPU that are compared: PyTorch, and the runtimes that are here and have their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from export.gpu_benchmark.pytorch import PyTorch
from export.parity import provable_variants
from export.runtimes.base import Logits, Pixels
from export.runtimes.registry import load
from models.bundle import Bundle

COMPILED = "torch compiled"
ON_GPU = ("onnxruntime_cuda", "tensorrt", "tensorrt_rtx")
"""Runtimes that need one."""


class Engine(Protocol):
    """What is timed."""

    def run(self, pixels: Pixels) -> Logits:
        """uint8 (N, S, S, 3) to float32 (N, classes), both in the host's memory."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An engine that takes part."""

    name: str
    precision: str
    load: Callable[[], Engine]


def entries(bundle: Bundle, *, device: str, dtype: torch.dtype, precision: str) -> Iterator[Entry]:
    """What can run the bundle here, the slowest to prepare last.

    Args:
        bundle: with its files.
        device: `cuda`, or `cpu` for a trial without a GPU.
        dtype: of PyTorch's networks.
        precision: of everything, as the second half of a variant's name.
    """
    torch_engine = partial(PyTorch, bundle, device=device, dtype=dtype)
    yield Entry(name="torch eager", precision=precision, load=torch_engine)
    names = ON_GPU if device == "cuda" else ("onnxruntime",)
    for variant in provable_variants(bundle):
        name, _, of_variant = variant.rpartition("-")
        if name in names and of_variant == precision:
            yield Entry(name=variant, precision=precision, load=partial(load, bundle, variant, threads=1))
    yield Entry(name=COMPILED, precision=precision, load=partial(torch_engine, compiled=True))
