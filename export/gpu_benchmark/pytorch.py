"""PyTorch as an engine to compare with: FP16, channels last, each batch size a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from export.runtimes.base import Logits, Pixels
from models.bundle import Bundle
from models.checkpoint import load_module
from models.graph import ServingGraph

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
