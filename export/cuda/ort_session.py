"""Execution context of ONNX Runtime sessions, which bind their inputs and outputs to our GPU memory and stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from export.cuda.graph import undisturbed
from export.cuda.stream import Stream


class Sessions:
    """A `Context` (`export.cuda.slots`) with one session for each batch size; inputs and outputs stay on the GPU.

    Args:
        first: the `InferenceSession` for single images.
        create: creates the session for another batch size.
        classes: number of logits.
        stream: the stream of the sessions' work; kept alive, as it must outlive the sessions.
    """

    def __init__(self, first: Any, create: Callable[[int], Any], classes: int, stream: Stream) -> None:
        import onnxruntime

        self._sessions, self._create, self._classes = {1: first}, create, classes
        self._addresses: dict[str, int] = {}
        self._bindings: dict[int, Any] = {}
        self._rows = 0
        self._options = onnxruntime.RunOptions()
        # Later work on the same stream waits for this work anyway.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        # The library itself records no CUDA graphs.
        self._options.add_run_config_entry("gpu_graph_id", "-1")
        # The last attribute: attributes are released in order.
        self._stream = stream

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Set the GPU address of `pixels` or `logits`."""
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Set the shape of the next batch; a new batch size takes a second or two."""
        self._rows = shape[0]
        if self._rows not in self._bindings:
            if self._rows not in self._sessions:
                with undisturbed:
                    self._sessions[self._rows] = _runtime_errors(partial(self._create, self._rows))
            binding = self._sessions[self._rows].io_binding()
            binding.bind_input(name, "cuda", 0, np.uint8, shape, self._addresses[name])
            logits = (self._rows, self._classes)
            binding.bind_output("logits", "cuda", 0, np.float32, logits, self._addresses["logits"])
            self._bindings[self._rows] = binding
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue the work on the sessions' stream."""
        session, binding = self._sessions[self._rows], self._bindings[self._rows]
        _runtime_errors(partial(session.run_with_iobinding, binding, self._options))
        return True


def _runtime_errors(call: Callable[[], Any]) -> Any:
    """Return the call's result.

    Raises:
        RuntimeError: for any error of ONNX Runtime, whose own exception types derive from Exception alone.
    """
    try:
        return call()
    except Exception as error:
        raise RuntimeError(" ".join(str(error).split())) from error
