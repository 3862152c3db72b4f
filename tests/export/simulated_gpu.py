"""A GPU made of host memory: CUDA's calls do on the host what they promise, and not before the stream is waited for.

TensorRT's part answers with the mean of each picture plus the index of the class, so that every row is recognisable.
"""

import ctypes
import enum
import types
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorrt_rtx

VERSION = "11.1.0.5"
CLASSES = 1000


class Status(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorIllegalInstruction = 715  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


class Cuda(types.ModuleType):
    """`cuda.bindings.runtime` with a GPU of some compute capability, or with none at all."""

    cudaHostAllocDefault = 0  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, compute_capability: str | None, memory: int = 2**31) -> None:
        super().__init__("cuda.bindings.runtime")
        self.capability = compute_capability
        self.free = memory
        self.blocks: dict[int, Any] = {}
        self.streams: dict[int, deque[Callable[[], object]]] = {}
        self.capturable = True
        self.lost = False
        self.captures: dict[int, deque[Callable[[], object]]] = {}
        self.graphs: dict[int, list[Callable[[], object]]] = {}
        self.launched: list[int] = []

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return (Status.cudaSuccess, 1) if self.capability else (Status.cudaErrorInsufficientDriver, None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        major, minor = map(int, str(self.capability).split("."))
        return Status.cudaSuccess, types.SimpleNamespace(name=b"Simulated GPU", major=major, minor=minor)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if size > self.free:
            return Status.cudaErrorMemoryAllocation, None
        block = (ctypes.c_uint8 * size)()
        # What a fresh block holds is anything but zeros.
        ctypes.memset(block, 0xA5, size)
        self.free -= size
        self.blocks[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        self.free += ctypes.sizeof(self.blocks.pop(address))
        return (Status.cudaSuccess,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaGetLastError(self) -> tuple[Any, ...]:  # noqa: N802
        return (Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        assert flags == self.cudaStreamNonBlocking
        handle = len(self.streams) + 1
        self.streams[handle] = deque()
        return Status.cudaSuccess, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        del self.streams[stream]
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.streams[stream].append(lambda: ctypes.memmove(target, source, size))
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:  # noqa: N802
        assert not self.streams[stream]
        self.captures[stream], self.streams[stream] = self.streams[stream], deque()
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        work, self.streams[stream] = self.streams[stream], self.captures.pop(stream)
        return (Status.cudaSuccess, list(work)) if self.capturable else (Status.cudaErrorStreamCaptureInvalidated, None)

    def cudaGraphInstantiate(self, graph: list[Any], flags: int) -> tuple[Any, ...]:  # noqa: N802
        handle = max(self.graphs, default=0) + 1
        self.graphs[handle] = graph
        return Status.cudaSuccess, handle

    def cudaGraphDestroy(self, graph: list[Any]) -> tuple[Any, ...]:  # noqa: N802
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Any, ...]:  # noqa: N802
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.streams[stream].extend(self.graphs[graph])
        self.launched.append(graph)
        return (Status.cudaSuccess,)

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:  # noqa: N802
        """Fails while anything is recorded, in whatever thread and mode, and spoils that."""
        if self.captures:
            self.capturable = False
            return (Status.cudaErrorStreamCaptureUnsupported,)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        if self.lost:
            return (Status.cudaErrorIllegalInstruction,)
        while self.streams[stream]:
            self.streams[stream].popleft()()
        return (Status.cudaSuccess,)


class Context:
    """An `IExecutionContext`."""

    def __init__(self, cuda: Cuda, profile: tuple[int, int]) -> None:
        self.cuda, self.profile = cuda, profile
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.settled: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return self.profile[0] <= shape[0] <= self.profile[1]

    def execute_async_v3(self, stream: int) -> bool:
        if stream in self.cuda.captures:
            # A change of shape is no part of a recording.
            self.cuda.capturable &= self.shape == self.settled
        self.settled = self.shape
        self.cuda.streams[stream].append(partial(self._execute, self.shape))
        return True

    def _execute(self, shape: tuple[int, ...]) -> None:
        pixels = np.ctypeslib.as_array(self.cuda.blocks[self.addresses["pixels"]])[: int(np.prod(shape))]
        logits = np.ctypeslib.as_array(self.cuda.blocks[self.addresses["logits"]]).view(np.float32)
        means = pixels.reshape(shape[0], -1).mean(axis=1, dtype=np.float32)
        answer = means[:, None] + np.arange(CLASSES, dtype=np.float32)
        logits[: answer.size] = answer.ravel()


def tensorrt(cuda: Cuda, deserialised: list[bytes], profile: tuple[int, int]) -> types.ModuleType:
    """The module `tensorrt`: the builder is the real one of the other edition, what runs plans is simulated.

    Args:
        cuda: where plans run.
        deserialised: every plan that was deserialised is added here; an empty plan is refused.
        profile: smallest and largest batch that plans accept.
    """

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            deserialised.append(plan)
            if plan:
                return types.SimpleNamespace(create_execution_context=lambda: Context(cuda, profile))
            self.logger.log(tensorrt_rtx.ILogger.ERROR, "the plan is\nempty")
            return None

    module = types.ModuleType("tensorrt")
    vars(module).update(vars(tensorrt_rtx) | {"__name__": "tensorrt", "__version__": VERSION, "Runtime": Runtime})
    return module
