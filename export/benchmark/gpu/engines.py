"""The ways to run a bundle on a GPU that are compared: PyTorch, and the runtimes that are here and have their files."""

# MERGED-DOC """PyTorch as an engine to compare with: FP16, channels last, each batch size a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from export.parity.prove import provable_variants
from export.runtime import Logits, Pixels
from export.variants import load
from models.bundle.bundle import Bundle
from models.checkpoint import load_module
from models.graph import ServingGraph

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


WARM_UP = 3


class PyTorch:
    """The bundle's checkpoint on a device.

    On a GPU the work of a batch size is recorded once, between pinned memory and pinned memory, and replayed; on the
    processor it is called as it is.

    Args:
        bundle: whose checkpoint.
        device: `cuda` or `cpu`.
        dtype: of the network.
        compiled: by `torch.compile`, for each batch size by itself.
    """

    def __init__(self, bundle: Bundle, *, device: str, dtype: torch.dtype, compiled: bool = False) -> None:
        network: Any = load_module(bundle).to(device=device, dtype=dtype)
        graph = ServingGraph(network.to(memory_format=torch.channels_last), bundle.manifest.input).eval().to(device)
        # The statistics of normalisation stay in FP32.
        self._graph: Any = torch.compile(graph, dynamic=False) if compiled else graph
        self._device = device
        if device == "cuda":
            # Shapes are fixed: the fastest kernel for each is looked for once, as TensorRT and ONNX Runtime do.
            torch.backends.cudnn.benchmark = True
            # Replayed one after the other, the recordings may share their memory.
            self._pool: Any = torch.cuda.graph_pool_handle()
        self._replays: dict[int, Callable[[Pixels], Logits]] = {}

    def run(self, pixels: Pixels) -> Logits:
        """uint8 (N, S, S, 3) to float32 (N, classes)."""
        if self._device == "cpu":
            with torch.inference_mode():
                return np.asarray(self._graph(torch.from_numpy(pixels)).numpy())
        if len(pixels) not in self._replays:
            self._replays[len(pixels)] = self._recorded(pixels.shape)
        return self._replays[len(pixels)](pixels)

    # Not in inference mode, whose tensors can't be written to outside of it, as every replay does.
    @torch.no_grad()
    def _recorded(self, shape: tuple[int, ...]) -> Callable[[Pixels], Logits]:
        source = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        pixels = source.to(self._device)
        # On a stream of its own, as recording demands (PyTorch, "CUDA semantics", CUDA Graphs).
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                logits = self._graph(pixels)
        torch.cuda.current_stream().wait_stream(stream)
        answer = torch.zeros(logits.shape, pin_memory=True)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, pool=self._pool):
            pixels.copy_(source, non_blocking=True)
            answer.copy_(self._graph(pixels), non_blocking=True)

        def replay(given: Pixels) -> Logits:
            source.copy_(torch.from_numpy(given))
            recorded.replay()
            torch.cuda.synchronize()
            return np.array(answer.numpy())

        return replay
