"""TensorRT for RTX on an NVIDIA RTX GPU: plans that were built ahead of time on any machine."""

from __future__ import annotations

from typing import Any, ClassVar

from export.cuda.device import Gpu, gpu
from export.trt.engine import TensorRt
from export.trt.library import Library, known_capabilities, library
from models.common.errors import HalftoneError


class TensorRtRtx(TensorRt):
    """The edition `tensorrt_rtx`; a plan's kernels are compiled for the GPU when it is loaded.

    It records CUDA graphs itself, one for each shape, since it alone knows when the kernels for a shape are compiled
    (TensorRT for RTX, "Working with RTX CUDA Graphs").
    """

    name: ClassVar[str] = "tensorrt_rtx"
    recorded: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """Raise HalftoneError where the library or a GPU is missing, or the one does not know the other."""
        super().require()
        if not _knows(found := gpu()):
            raise HalftoneError(
                f"TensorRT for RTX does not run on {found.name}, whose compute capability is "
                f"{found.compute_capability} (it knows {', '.join(known_capabilities(library(cls.name)))} and newer "
                "ones): use --runtime tensorrt, or serve onnxruntime_cuda-fp16"
            )

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Whether the library and a GPU that it knows are here."""
        return super().supported(precision) and _knows(gpu())

    def _context(self, edition: Library, engine: Any) -> Any:
        api, config = edition.api, engine.create_runtime_config()
        config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Not compiled in the background: the kernels that the proof ran are those that answer, from the first batch on.
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        return engine.create_execution_context(config)


def _knows(present: Gpu) -> bool:
    """Plans run on the GPUs that the library can name, and on newer ones; not on data-centre GPUs in between."""
    known = [_number(each) for each in known_capabilities(library(TensorRtRtx.name))]
    return (number := _number(present.compute_capability)) in known or number > max(known)


def _number(capability: str) -> tuple[int, ...]:
    return tuple(map(int, capability.split(".")))


RUNTIME = TensorRtRtx
