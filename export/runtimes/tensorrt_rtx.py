"""TensorRT for RTX on an NVIDIA RTX GPU: plans that were built ahead of time on any machine."""

from __future__ import annotations

from typing import Any, ClassVar

from export.tensorrt.engine import TensorRt
from export.tensorrt.library import Library


class TensorRtRtx(TensorRt):
    """The edition `tensorrt_rtx`; a plan's kernels are compiled for the GPU when it is loaded.

    It records CUDA graphs itself, one for each shape, since it alone knows when the kernels for a shape are compiled
    (TensorRT for RTX, "Working with RTX CUDA Graphs").
    """

    name: ClassVar[str] = "tensorrt_rtx"
    recorded: ClassVar[bool] = False

    def _context(self, edition: Library, engine: Any) -> Any:
        api, config = edition.api, engine.create_runtime_config()
        config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Not compiled in the background: the kernels that the proof ran are those that answer, from the first batch on.
        config.dynamic_shapes_kernel_specialization_strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        return engine.create_execution_context(config)


RUNTIME = TensorRtRtx
