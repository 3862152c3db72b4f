"""A CUDA stream: work that is put on it is done in its order."""

# MERGED-DOC """Memory that a plan reads and writes: page-locked on the host, its twin on the GPU, and the stream between them."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from export.cuda.device import checked


class Stream:
    """A stream that lasts as long as anything holds this object; `int` gives its handle.

    Args:
        api: the CUDA runtime API.

    Raises:
        RuntimeError: there is no room for it.
    """

    def __init__(self, api: Any) -> None:
        # One that the legacy default stream does not wait for: while it is recorded, work there would be an error.
        self.handle = checked(api.cudaStreamCreateWithFlags(api.cudaStreamNonBlocking))
        weakref.finalize(self, api.cudaStreamDestroy, self.handle).atexit = False

    def __int__(self) -> int:
        return int(self.handle)


class Staging:
    """An array in page-locked host memory with room for it on the GPU.

    Page-locked memory is what copies that run beside the GPU's work need (CUDA C++ Programming Guide, 6.2.6).

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
        """Of the GPU's copy."""
        weakref.finalize(self, api.cudaFree, self.address).atexit = False
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pinned)).view(dtype).reshape(shape)
        """The host's copy; valid as long as this object lives."""
        self._api = api

    def to_gpu(self, rows: int, stream: Any) -> None:
        """Copy the first rows to the GPU when the stream gets there."""
        self._copy(self.address, self.array.ctypes.data, rows, self._api.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def to_host(self, rows: int, stream: Any) -> None:
        """Copy the first rows back when the stream gets there."""
        self._copy(self.array.ctypes.data, self.address, rows, self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def _copy(self, target: int, source: int, rows: int, kind: Any, stream: Any) -> None:
        checked(self._api.cudaMemcpyAsync(target, source, self.array[:rows].nbytes, kind, stream))
