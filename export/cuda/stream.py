"""CUDA streams, and page-locked staging memory with a copy on the GPU."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from export.cuda.device import checked


class Stream:
    """A CUDA stream, which executes its work in order; it exists as long as this object, and `int` gives its handle.

    Args:
        api: the CUDA runtime API.

    Raises:
        RuntimeError: the GPU has no memory for it.
    """

    def __init__(self, api: Any) -> None:
        # Independent of the legacy default stream, where work would fail while this stream is recorded.
        self.handle = checked(api.cudaStreamCreateWithFlags(api.cudaStreamNonBlocking))
        weakref.finalize(self, api.cudaStreamDestroy, self.handle).atexit = False

    def __int__(self) -> int:
        return int(self.handle)


class Staging:
    """An array in page-locked host memory with a buffer of the same size on the GPU.

    Copies that run concurrently with the GPU's work need page-locked memory (CUDA C++ Programming Guide, 6.2.6).

    Args:
        api: the CUDA runtime API.
        shape: of the array.
        dtype: of the array.

    Raises:
        RuntimeError: there is not enough memory.
    """

    def __init__(self, api: Any, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pinned = int(checked(api.cudaHostAlloc(size, api.cudaHostAllocDefault)))
        weakref.finalize(self, api.cudaFreeHost, pinned).atexit = False
        self.address = int(checked(api.cudaMalloc(size)))
        """GPU address of the buffer."""
        weakref.finalize(self, api.cudaFree, self.address).atexit = False
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pinned)).view(dtype).reshape(shape)
        """The host's array; valid as long as this object exists."""
        self._api = api

    def to_gpu(self, rows: int, stream: Any) -> None:
        """Enqueue a copy of the first rows to the GPU on the stream."""
        self._copy(self.address, self.array.ctypes.data, rows, self._api.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def to_host(self, rows: int, stream: Any) -> None:
        """Enqueue a copy of the first rows to the host on the stream."""
        self._copy(self.array.ctypes.data, self.address, rows, self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def _copy(self, target: int, source: int, rows: int, kind: Any, stream: Any) -> None:
        checked(self._api.cudaMemcpyAsync(target, source, self.array[:rows].nbytes, kind, stream))
