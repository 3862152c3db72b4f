"""TensorRT for RTX on an NVIDIA RTX GPU; it runs plans that were built ahead of time on any machine."""

from __future__ import annotations

from typing import Any, ClassVar

from export.cuda.device import Gpu, gpu
from export.trt.engine import TensorRt
from export.trt.library import Library, known_capabilities, library
from models.common.errors import HalftoneError


class TensorRtRtx(TensorRt):
    """Plans of the edition `tensorrt_rtx`, which compiles a plan's kernels for the GPU at load time.

    The library records its own CUDA graphs, one for each shape, as only the library knows when the kernels for a shape
    are compiled (TensorRT for RTX, "Working with RTX CUDA Graphs").
    """

    name: ClassVar[str] = "tensorrt_rtx"
    records_graphs: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """Raise HalftoneError if the library or a GPU is missing, or the library does not support the GPU."""
        super().require()
        if not _supports(device := gpu()):
            known = ", ".join(known_capabilities(library(cls.name)))
            raise HalftoneError(
                f"TensorRT for RTX does not run on {device.name}, whose compute capability is "
                f"{device.compute_capability} (it supports {known} and newer GPUs): use --runtime tensorrt, or serve "
                "onnxruntime_cuda-fp16"
            )

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Return True if the library is installed and supports this machine's GPU."""
        return super().supported(precision) and _supports(gpu())

    def _context(self, edition: Library, engine: Any) -> Any:
        api, config = edition.api, engine.create_runtime_config()
        config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # No compilation in the background: from the first batch on, serving runs the kernels that the proof ran.
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        return engine.create_execution_context(config)


def _supports(device: Gpu) -> bool:
    """Return True for GPUs that the library can name and for newer ones, but not for data-centre GPUs in between."""
    known = [_number(each) for each in known_capabilities(library(TensorRtRtx.name))]
    return (number := _number(device.compute_capability)) in known or number > max(known)


def _number(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


RUNTIME = TensorRtRtx
