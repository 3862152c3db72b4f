"""ONNX Runtime on an NVIDIA GPU: serves where there is no TensorRT, and is what TensorRT is compared with."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from export.runtimes.base import Pixels, Runtime
from export.runtimes.onnxruntime import OnnxRuntime
from export.tensorrt.device import gpu, has_gpu
from models.bundle import Bundle
from models.errors import HalftoneError

_PROVIDER = "CUDAExecutionProvider"
_INSTALL = "`pip install 'onnxruntime-gpu[cuda,cudnn]'`"


class OnnxRuntimeCuda(Runtime):
    """`model.PRECISION.onnx` on the first visible GPU; calls share one session and its stream."""

    name: ClassVar[str] = "onnxruntime_cuda"
    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32")

    @classmethod
    def source(cls, precision: str) -> str:
        """The ONNX graph of that precision."""
        return OnnxRuntime.source(precision)

    @classmethod
    def version(cls) -> str:
        """ONNX Runtime's version."""
        return OnnxRuntime.version()

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Whether a GPU is here, the library was built for it, and CUDA's libraries and cuDNN can be loaded."""
        return precision in cls.precisions and has_gpu() and _built_for_it() and _loadable()

    @property
    def executed_as(self) -> str:
        """Precision of the graph, and the GPU."""
        return f"{self.precision} on {self._gpu.name}"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        import onnxruntime

        self._gpu = gpu()
        if not _built_for_it():
            raise HalftoneError(f"this ONNX Runtime was not built for GPUs: {_INSTALL}")
        # Where they can't be loaded it would take the processor instead and only log that.
        if not _loadable():
            raise HalftoneError(f"ONNX Runtime can't load CUDA's libraries or cuDNN: {_INSTALL}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # TF32 would round FP32 to ten bits without saying so.
        provider = (_PROVIDER, {"use_tf32": "0", "prefer_nhwc": "1"})
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=[provider])
        # ONNX Runtime's own exception types derive from Exception alone.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise HalftoneError(
                f"ONNX Runtime {self.version()} can't load {self.source(self.precision)} of {bundle.folder} on "
                f"{self._gpu.name}: {reason}; export it again with "
                f"{bundle.manifest.files[self.source(self.precision)].made_by}"
            ) from None
        if self._session.get_providers()[0] != _PROVIDER:
            raise HalftoneError(f"ONNX Runtime runs {self.source(self.precision)} on the processor: {_INSTALL}")
        self._session.disable_fallback()

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        (logits,) = self._session.run(["logits"], {"pixels": pixels})
        return np.asarray(logits)


def _built_for_it() -> bool:
    import onnxruntime

    return _PROVIDER in onnxruntime.get_available_providers()


@functools.cache
def _loadable() -> bool:
    """Whether what the provider is linked with is here; found out without making a session, which would print."""
    import onnxruntime

    # CUDA and cuDNN as pip installs them; where the system has them, there is nothing to load.
    onnxruntime.preload_dlls()
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider), mode=os.RTLD_LAZY)
    except OSError:
        return False
    return True


RUNTIME = OnnxRuntimeCuda
