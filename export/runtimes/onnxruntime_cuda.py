"""ONNX Runtime on an NVIDIA GPU: the alternative to TensorRT, and its baseline in benchmarks.

Source of the options: ONNX Runtime, "CUDA Execution Provider" and "I/O Binding".
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from export.cuda import slots
from export.cuda.device import GpuLostError, gpu, has_gpu
from export.cuda.ort_session import Sessions
from export.cuda.slots import Slot, Slots
from export.cuda.stream import Stream
from export.runtime import Pixels, Runtime
from export.runtimes.onnxruntime import OnnxRuntime
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError

_PROVIDER = "CUDAExecutionProvider"
_FATAL = 4
_CUDNN = "libcudnn.so.9"

_FASTEST = {"prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
"""Measured on an H200 with MobileNetV3-Large in batches of 1, 8 and 64: these options 765, 4,941 and 16,598 images/s;
EXHAUSTIVE, the default, 825, 3,737 and 11,519; NCHW 589, 4,511 and 11,420."""

_INSTALL = "`pip install 'onnxruntime-gpu[cuda,cudnn]'`"

MAX_STAGING = 64 * 2**20
"""Limit on the bytes of pixels in each slot."""

MAX_SLOTS = 2
"""Two: one batch is copied while another is computed. Each slot has its own sessions and copy of the weights."""


class OnnxRuntimeCuda(Runtime):
    """`model.PRECISION.onnx` on the first visible GPU; each slot has its own sessions, stream and staging memory.

    Images are copied to page-locked memory once; no Python code runs for a single image. A batch is padded to a power
    of two, and each of these sizes has its own session. A session that gets another size than before prepares all its
    convolutions again, which took two seconds on an H200 with MobileNetV3-Large, and its recorded CUDA graphs become
    invalid.
    """

    name: ClassVar[str] = "onnxruntime_cuda"
    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32")
    sizes: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16, 32)

    @classmethod
    def source(cls, precision: str) -> str:
        """Return the ONNX graph of that precision."""
        return OnnxRuntime.source(precision)

    @classmethod
    def version(cls) -> str:
        """Return ONNX Runtime's version."""
        return OnnxRuntime.version()

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Return True if there is a GPU, the library supports CUDA, and CUDA's libraries and cuDNN can be loaded."""
        return precision in cls.precisions and has_gpu() and _built_for_cuda() and _loadable()

    @property
    def executed_as(self) -> str:
        """Precision of the graph and the GPU."""
        return f"{self.precision} on {self._gpu.name}"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        self._gpu = gpu()
        if not _built_for_cuda():
            raise HalftoneError(f"the installed ONNX Runtime does not support GPUs: {_INSTALL}")
        # Without these libraries, ONNX Runtime would run on the CPU and only log that.
        if not _loadable():
            raise HalftoneError(f"ONNX Runtime can't load CUDA's libraries or cuDNN: {_INSTALL}")
        largest = max(1, min(self.sizes[-1], MAX_STAGING // math.prod(self.shape)))
        slot = partial(
            Slot,
            partial(self._context, source, bundle),
            self.shape,
            self.classes,
            maximum=largest,
            padded=partial(_padded, largest=largest),
        )
        self.streams = min(streams, MAX_SLOTS)
        try:
            self._slots = Slots(slot, self.streams)
        except GpuLostError:
            raise
        except RuntimeError as error:
            raise HalftoneError(
                f"{self._gpu.name} has no memory for {self.source(self.precision)}: {error}; stop other programs that "
                "use the GPU"
            ) from None

    def _context(self, source: bytes, bundle: Bundle, stream: Stream) -> tuple[Sessions, int]:
        """Create sessions that enqueue their work on the stream; also return how many batch sizes may be recorded."""
        import onnxruntime

        # The process-wide logger of the library, not the session's, reports which of cuDNN's plans are unusable.
        onnxruntime.set_default_logger_severity(_FATAL)
        # TF32 would silently round FP32 to ten bits; an FP16 graph may also contain FP32 layers.
        settings = {"use_tf32": "0", "user_compute_stream": str(int(stream))} | _FASTEST
        try:
            first, recorded = _recordable(source, settings), slots.RECORDED_SIZES
            if first is None:
                first, recorded = _session(source, settings, 1), 0
        # ONNX Runtime's own exception types derive from Exception alone.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise HalftoneError(
                f"ONNX Runtime {self.version()} can't load {self.source(self.precision)} of {bundle.folder} on "
                f"{self._gpu.name}: {reason}; export it again with "
                f"{bundle.command(self.source(self.precision))}"
            ) from None
        if first.get_providers()[0] != _PROVIDER:
            raise HalftoneError(f"ONNX Runtime runs {self.source(self.precision)} on the CPU: {_INSTALL}")
        settings |= {"enable_cuda_graph": "1"} if recorded else {}
        return Sessions(first, partial(_session, source, settings), self.classes, stream), recorded

    def keep(self, sizes: Collection[int]) -> None:
        """Run batches of these sizes in every slot, as the first batch of a size creates its session."""
        self._slots.keep(sizes)

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        return self._slots.run(pixels)


def _padded(count: int, *, largest: int) -> int:
    """Return the power of two that a batch is padded to."""
    return min(largest, 1 << (count - 1).bit_length())


def _session(source: bytes, settings: dict[str, str], rows: int) -> Any:
    """Create a session for batches of one size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.add_free_dimension_override_by_name("batch", rows)
    session = onnxruntime.InferenceSession(source, options, providers=[(_PROVIDER, settings)])
    session.disable_fallback()
    return session


def _recordable(source: bytes, settings: dict[str, str]) -> Any:
    """Create a session whose work may be recorded; return None if the library finds that parts of the graph may not.

    The setting is used only for that check. The library's own recording would keep all other threads from using the
    GPU, so every run disables it (`gpu_graph_id` in `export.cuda.ort_session`).
    """
    try:
        return _session(source, settings | {"enable_cuda_graph": "1"}, 1)
    # Any other error occurs again without this setting.
    except Exception:
        return None


def _built_for_cuda() -> bool:
    import onnxruntime

    return _PROVIDER in onnxruntime.get_available_providers()


@functools.cache
def _loadable() -> bool:
    """Return True if the provider's libraries can be loaded; does not create a session, which would print errors."""
    import onnxruntime

    # CUDA and cuDNN from pip packages; does nothing if the system provides them.
    onnxruntime.preload_dlls()
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider), mode=os.RTLD_LAZY)
        # The provider is not linked with cuDNN: it loads cuDNN at the first convolution.
        ctypes.CDLL(_CUDNN)
    except OSError:
        return False
    return True


RUNTIME = OnnxRuntimeCuda
