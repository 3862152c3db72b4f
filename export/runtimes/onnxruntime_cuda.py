"""ONNX Runtime on an NVIDIA GPU: serves where there is no TensorRT, and is what TensorRT is compared with.

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
"""Measured on an H200 with MobileNetV3-Large in batches of 1, 8 and 64, images/s: these 765, 4,941 and 16,598;
EXHAUSTIVE, which is the default, 825, 3,737 and 11,519; NCHW 589, 4,511 and 11,420."""

_INSTALL = "`pip install 'onnxruntime-gpu[cuda,cudnn]'`"

MAX_STAGING = 64 * 2**20
"""Bytes of pixels that each slot has room for."""

MAX_SLOTS = 2
"""Each has sessions, and with them the weights, of its own: while one batch is computed another one is copied."""


class OnnxRuntimeCuda(Runtime):
    """`model.PRECISION.onnx` on the first visible GPU; each batch in flight has sessions, a stream and staging memory.

    Pictures are copied to page-locked memory once, and nothing is done for a single one in Python. A batch is filled up
    to a power of two, and each of these sizes has a session: one that sees another size than the last time prepares
    all its convolutions anew, which took two seconds on an H200 with MobileNetV3-Large, and what was recorded of it
    before may not be launched any more.
    """

    name: ClassVar[str] = "onnxruntime_cuda"
    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32")
    sizes: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16, 32)

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
        self._gpu = gpu()
        if not _built_for_it():
            raise HalftoneError(f"this ONNX Runtime was not built for GPUs: {_INSTALL}")
        # Where they can't be loaded it would take the processor instead and only log that.
        if not _loadable():
            raise HalftoneError(f"ONNX Runtime can't load CUDA's libraries or cuDNN: {_INSTALL}")
        largest = max(1, min(self.sizes[-1], MAX_STAGING // math.prod(self.shape)))
        slot = partial(
            Slot,
            partial(self._context, source, bundle),
            self.shape,
            self.classes,
            maximum=largest,
            filled_up=partial(_filled_up, largest=largest),
        )
        self.streams = min(streams, MAX_SLOTS)
        try:
            self._slots = Slots(slot, self.streams)
        except GpuLostError:
            raise
        except RuntimeError as error:
            raise HalftoneError(
                f"{self._gpu.name} can't hold {self.source(self.precision)}: {error}; stop what else uses the GPU"
            ) from None

    def _context(self, source: bytes, bundle: Bundle, stream: Stream) -> tuple[Sessions, int]:
        """Sessions that put their work on the stream, and how many batch sizes may be recorded."""
        import onnxruntime

        # The library's logger for the whole process, not a session's, reports which of cuDNN's plans can't be used.
        onnxruntime.set_default_logger_severity(_FATAL)
        # TF32 would round FP32 to ten bits without saying so; a graph of FP16 may hold some, too.
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
                f"{bundle.manifest.files[self.source(self.precision)].made_by}"
            ) from None
        if first.get_providers()[0] != _PROVIDER:
            raise HalftoneError(f"ONNX Runtime runs {self.source(self.precision)} on the processor: {_INSTALL}")
        settings |= {"enable_cuda_graph": "1"} if recorded else {}
        return Sessions(first, partial(_session, source, settings), self.classes, stream), recorded

    def keep(self, sizes: Collection[int]) -> None:
        """Run batches of these sizes in every slot: a size's session is made when it first comes."""
        self._slots.keep(sizes)

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        return self._slots.run(pixels)


def _filled_up(count: int, *, largest: int) -> int:
    """The power of two that a batch is filled up to."""
    return min(largest, 1 << (count - 1).bit_length())


def _session(source: bytes, settings: dict[str, str], rows: int) -> Any:
    """A session for batches of one size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.add_free_dimension_override_by_name("batch", rows)
    session = onnxruntime.InferenceSession(source, options, providers=[(_PROVIDER, settings)])
    session.disable_fallback()
    return session


def _recordable(source: bytes, settings: dict[str, str]) -> Any:
    """A session whose work may be recorded, None where the library finds parts of the graph that may not.

    The library would record as well, but forbid all other threads to use the GPU meanwhile; it is told not to in every
    run, and the check that it makes beforehand is what is wanted.
    """
    try:
        return _session(source, settings | {"enable_cuda_graph": "1"}, 1)
    # Another reason to fail comes again without this setting.
    except Exception:
        return None


def _built_for_it() -> bool:
    import onnxruntime

    return _PROVIDER in onnxruntime.get_available_providers()


@functools.cache
def _loadable() -> bool:
    """Whether what the provider needs is here; found out without making a session, which would print."""
    import onnxruntime

    # CUDA and cuDNN as pip installs them; where the system has them, there is nothing to load.
    onnxruntime.preload_dlls()
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider), mode=os.RTLD_LAZY)
        # Not linked with it: it is looked for when the first convolution comes.
        ctypes.CDLL(_CUDNN)
    except OSError:
        return False
    return True


RUNTIME = OnnxRuntimeCuda
