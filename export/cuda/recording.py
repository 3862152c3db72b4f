"""A CUDA graph: what a stream did once, launched again as a whole, without the host's cost of every single kernel.

Source: CUDA C++ Programming Guide, "CUDA Graphs"; TensorRT's developer guide, "CUDA Graphs" under performance.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from export.cuda.device import checked


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
        # Only this thread is forbidden what would disturb the recording: others load, run and record meanwhile.
        checked(api.cudaStreamBeginCapture(stream, api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        worked = False
        try:
            work()
            worked = True
        finally:
            # Also after a failure, so that the stream works again; the error must not be taken for a later call's.
            status, graph = api.cudaStreamEndCapture(stream)
            if int(status) == 0 and not worked:
                api.cudaGraphDestroy(graph)
            if int(status) or not worked:
                api.cudaGetLastError()
        graph = checked((status, graph))
        try:
            self._executable = checked(api.cudaGraphInstantiate(graph, 0))
        finally:
            checked(api.cudaGraphDestroy(graph))
        weakref.finalize(self, api.cudaGraphExecDestroy, self._executable).atexit = False

    def launch(self) -> None:
        """Put all of it on the stream again.

        Raises:
            RuntimeError: the GPU reports an error.
        """
        checked(self._api.cudaGraphLaunch(self._executable, self._stream))
