"""Engines to compare on a GPU: PyTorch, and the installed runtimes whose files the bundle holds."""

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
"""Runtimes that need a GPU."""

WARM_UP = 3


class Engine(Protocol):
    """Anything that computes logits."""

    def run(self, pixels: Pixels) -> Logits:
        """Compute float32 (N, classes) from uint8 (N, S, S, 3), both in the host's memory."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An engine and the way to load it."""

    name: str
    precision: str
    load: Callable[[], Engine]


def entries(bundle: Bundle, *, device: str, dtype: torch.dtype, precision: str) -> Iterator[Entry]:
    """Yield the engines that can run the bundle here; the slowest to prepare comes last.

    Args:
        bundle: the opened bundle.
        device: `cuda`, or `cpu` for a trial without a GPU.
        dtype: element type of PyTorch's networks.
        precision: second half of the variants' names.
    """
    torch_engine = partial(PyTorch, bundle, device=device, dtype=dtype)
    yield Entry(name="torch eager", precision=precision, load=torch_engine)
    names = ON_GPU if device == "cuda" else ("onnxruntime",)
    for variant in provable_variants(bundle):
        name, _, of_variant = variant.rpartition("-")
        if name in names and of_variant == precision:
            yield Entry(name=variant, precision=precision, load=partial(load, bundle, variant, threads=1))
    yield Entry(name=COMPILED, precision=precision, load=partial(torch_engine, compiled=True))


class PyTorch:
    """The bundle's checkpoint as an engine: channels last, and on a GPU each batch size as a CUDA graph.

    A CUDA graph records the work from pinned memory to pinned memory once and is then replayed. On the CPU the network
    is called directly.

    Args:
        bundle: holds the checkpoint.
        device: `cuda` or `cpu`.
        dtype: element type of the network.
        compiled: True to compile the network with `torch.compile`, separately for each batch size.
    """

    def __init__(self, bundle: Bundle, *, device: str, dtype: torch.dtype, compiled: bool = False) -> None:
        network: Any = load_module(bundle).to(device=device, dtype=dtype)
        graph = ServingGraph(network.to(memory_format=torch.channels_last), bundle.manifest.input).eval().to(device)
        # The input's mean and standard deviation stay FP32.
        self._graph: Any = torch.compile(graph, dynamic=False) if compiled else graph
        self._device = device
        if device == "cuda":
            # Shapes are fixed: search the fastest kernel for each once, as TensorRT and ONNX Runtime do.
            torch.backends.cudnn.benchmark = True
            # The graphs are replayed one after the other and may share their memory.
            self._pool: Any = torch.cuda.graph_pool_handle()
        self._replays: dict[int, Callable[[Pixels], Logits]] = {}

    def run(self, pixels: Pixels) -> Logits:
        """Compute float32 (N, classes) from uint8 (N, S, S, 3)."""
        if self._device == "cpu":
            with torch.inference_mode():
                return np.asarray(self._graph(torch.from_numpy(pixels)).numpy())
        if len(pixels) not in self._replays:
            self._replays[len(pixels)] = self._recorded(pixels.shape)
        return self._replays[len(pixels)](pixels)

    # Not inference mode: its tensors can't be written outside of it, as every replay does.
    @torch.no_grad()
    def _recorded(self, shape: tuple[int, ...]) -> Callable[[Pixels], Logits]:
        source = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        pixels = source.to(self._device)
        # On a separate stream, as recording requires (PyTorch, "CUDA semantics", CUDA Graphs).
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                logits = self._graph(pixels)
        torch.cuda.current_stream().wait_stream(stream)
        target = torch.zeros(logits.shape, pin_memory=True)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, pool=self._pool):
            pixels.copy_(source, non_blocking=True)
            target.copy_(self._graph(pixels), non_blocking=True)

        def replay(given: Pixels) -> Logits:
            source.copy_(torch.from_numpy(given))
            recorded.replay()
            torch.cuda.synchronize()
            return np.array(target.numpy())

        return replay
