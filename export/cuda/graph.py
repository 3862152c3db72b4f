"""A CUDA graph: what a stream did once, launched again as a whole, without the host's cost of every single kernel.

Source: CUDA C++ Programming Guide, "CUDA Graphs"; TensorRT's developer guide, "CUDA Graphs" under performance.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

from export.cuda.device import checked

undisturbed = threading.RLock()
"""Held while work is recorded, and by what must not happen meanwhile anywhere in the process: libraries that make or
free their handles wait for the whole GPU, which fails while anything is recorded, and ends the recording (cuBLAS,
`cublasDestroy`; CUDA Runtime API, `cudaErrorStreamCaptureUnsupported`). What only runs disturbs nobody."""


class Recording:
    """The work that a function puts on a stream; its addresses and shapes are fixed.

    Args:
        api: the CUDA runtime API.
        stream: that the work is put on; nothing is executed while it is recorded.
        work: puts it there.

    Raises:
        RuntimeError: the work can't be recorded; the stream is usable as before.
    """

    def __init__(self, api: Any, stream: Any, work: Callable[[], None]) -> None:
        self._api, self._stream = api, stream
        with undisturbed:
            graph = self._recorded(work)
        try:
            self._executable = checked(api.cudaGraphInstantiate(graph, 0))
        finally:
            checked(api.cudaGraphDestroy(graph))
        weakref.finalize(self, api.cudaGraphExecDestroy, self._executable).atexit = False

    def _recorded(self, work: Callable[[], None]) -> Any:
        """The graph of the work."""
        api, stream = self._api, self._stream
        # In another mode than this one no other thread might allocate memory meanwhile.
        checked(api.cudaStreamBeginCapture(stream, api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        worked, collects = False, gc.isenabled()
        # What the collector finalises in this thread would be a part of it.
        gc.disable()
        try:
            work()
            worked = True
        finally:
            if collects:
                gc.enable()
            # Also after a failure, so that the stream works again; the error must not be taken for a later call's.
            status, graph = api.cudaStreamEndCapture(stream)
            if int(status) == 0 and not worked:
                api.cudaGraphDestroy(graph)
            if int(status) or not worked:
                api.cudaGetLastError()
        return checked((status, graph))

    def launch(self) -> None:
        """Put all of it on the stream again.

        Raises:
            RuntimeError: the GPU reports an error.
        """
        checked(self._api.cudaGraphLaunch(self._executable, self._stream))
