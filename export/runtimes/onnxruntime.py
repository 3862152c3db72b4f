"""ONNX Runtime on the CPU: the reference runtime for serving."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from export.runtime import Pixels, Runtime
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError


def _installed_version() -> str:
    try:
        return package_version("onnxruntime-gpu")
    except PackageNotFoundError:
        return package_version("onnxruntime")


# Does not import the library: speed records are compared by version even if another runtime serves.
_VERSION = _installed_version()


class OnnxRuntime(Runtime):
    """`model.PRECISION.onnx` in an InferenceSession; the threads are divided among the streams."""

    name: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")

    @classmethod
    def source(cls, precision: str) -> str:
        """Return the ONNX graph of that precision."""
        return f"model.{precision}.onnx"

    @classmethod
    def version(cls) -> str:
        """Return ONNX Runtime's version, without importing the library."""
        return _VERSION

    @property
    def executed_as(self) -> str:
        """Precision of the graph and the active execution provider."""
        return f"{self.precision} on {self._session.get_providers()[0].removesuffix('ExecutionProvider')}"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        import onnxruntime

        self.inline = threads <= streams
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads // streams)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads would take processor time from the threads that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0" if streams > 1 else "1")
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        # ONNX Runtime's own exception types derive from Exception alone.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise HalftoneError(
                f"ONNX Runtime {self.version()} can't load {self.source(self.precision)} of {bundle.folder}: {reason}; "
                f"export it again with {bundle.command(self.source(self.precision))}"
            ) from None

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        (logits,) = self._session.run(["logits"], {"pixels": pixels})
        return np.asarray(logits)


RUNTIME = OnnxRuntime
