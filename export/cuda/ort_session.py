"""ONNX Runtime's sessions as an execution context: I/O binding on memory and a stream that are ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from export.cuda.graph import undisturbed
from export.cuda.stream import Stream


class Sessions:
    """A session for each batch size as a `Context`: what they read and write lies in the GPU's memory and stays there.

    Args:
        first: the `InferenceSession` for single pictures.
        opened: makes the one for another size.
        classes: number of logits.
        stream: that their work goes to; kept, as they must not outlive it.
    """

    def __init__(self, first: Any, opened: Callable[[int], Any], classes: int, stream: Stream) -> None:
        import onnxruntime

        self._sessions, self._opened, self._classes = {1: first}, opened, classes
        self._addresses: dict[str, int] = {}
        self._bindings: dict[int, Any] = {}
        self._rows = 0
        self._options = onnxruntime.RunOptions()
        # What follows on the stream waits for it there.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        # Nothing is recorded by the library itself.
        self._options.add_run_config_entry("gpu_graph_id", "-1")
        # The last of the attributes: they are given back in their order.
        self._stream = stream

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Where in the GPU's memory `pixels` lie, or where `logits` go."""
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """The shape of the next batch; a size that is new takes a second or two."""
        self._rows = shape[0]
        if self._rows not in self._bindings:
            if self._rows not in self._sessions:
                with undisturbed:
                    self._sessions[self._rows] = _checked(partial(self._opened, self._rows))
            binding = self._sessions[self._rows].io_binding()
            binding.bind_input(name, "cuda", 0, np.uint8, shape, self._addresses[name])
            answer = (self._rows, self._classes)
            binding.bind_output("logits", "cuda", 0, np.float32, answer, self._addresses["logits"])
            self._bindings[self._rows] = binding
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Put the work on the stream that the sessions were made for."""
        session, binding = self._sessions[self._rows], self._bindings[self._rows]
        _checked(partial(session.run_with_iobinding, binding, self._options))
        return True


def _checked(call: Callable[[], Any]) -> Any:
    """The call's result.

    Raises:
        RuntimeError: whatever ONNX Runtime raises, whose own exceptions derive from Exception alone.
    """
    try:
        return call()
    except Exception as error:
        raise RuntimeError(" ".join(str(error).split())) from error
