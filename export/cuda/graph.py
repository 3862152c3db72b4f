"""Record the work on a stream as a CUDA graph and launch it as a whole, which avoids the host's cost per kernel.

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
"""Lock held while recording, and by operations that must not run anywhere in the process meanwhile.

Libraries that create or destroy their handles synchronise the whole GPU. During a recording this fails and invalidates
the recording (cuBLAS, `cublasDestroy`; CUDA Runtime API, `cudaErrorStreamCaptureUnsupported`). Executing a model does
not need the lock."""


class Recording:
    """Recorded work of a stream, with fixed addresses and shapes.

    Args:
        api: the CUDA runtime API.
        stream: the stream to record; it executes nothing while recording.
        work: enqueues the work on the stream.

    Raises:
        RuntimeError: the work can't be recorded; the stream remains usable.
    """

    def __init__(self, api: Any, stream: Any, work: Callable[[], None]) -> None:
        self._api, self._stream = api, stream
        with undisturbed:
            graph = self._record(work)
        try:
            self._executable = checked(api.cudaGraphInstantiate(graph, 0))
        finally:
            checked(api.cudaGraphDestroy(graph))
        weakref.finalize(self, api.cudaGraphExecDestroy, self._executable).atexit = False

    def _record(self, work: Callable[[], None]) -> Any:
        """Capture the work as a graph."""
        api, stream = self._api, self._stream
        # In any other mode, no other thread might allocate memory meanwhile.
        checked(api.cudaStreamBeginCapture(stream, api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        succeeded, gc_enabled = False, gc.isenabled()
        # CUDA calls of finalisers that the collector runs in this thread would be recorded.
        gc.disable()
        try:
            work()
            succeeded = True
        finally:
            if gc_enabled:
                gc.enable()
            # Also after a failure, so that the stream works again. A later call must not report the same error.
            status, graph = api.cudaStreamEndCapture(stream)
            if int(status) == 0 and not succeeded:
                api.cudaGraphDestroy(graph)
            if int(status) or not succeeded:
                api.cudaGetLastError()
        return checked((status, graph))

    def launch(self) -> None:
        """Enqueue the recorded work on the stream.

        Raises:
            RuntimeError: the GPU reports an error.
        """
        checked(self._api.cudaGraphLaunch(self._executable, self._stream))
