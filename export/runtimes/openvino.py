"""OpenVINO on the CPU: FP32, bfloat16 arithmetic where the processor has it (AVX-512 BF16, AMX), or a quantised graph.

In a graph with QuantizeLinear/DequantizeLinear pairs OpenVINO runs the layers between them in 8-bit integers, and the
others in FP32.
"""

from __future__ import annotations

import io
import threading
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import openvino
from openvino import properties
from openvino.properties import hint

from export.runtimes.base import Pixels, Runtime
from models.bundle import Bundle
from models.errors import HalftoneError

_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
_QUANTISED = "int8"
# As the compiled model's own description names its layers.
_WEIGHTED = ("Convolution", "FullyConnected", "MatMul")


class OpenVino(Runtime):
    """The bundle's graph compiled for this CPU, with one infer request a calling thread."""

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("bf16", "fp32", _QUANTISED)

    @classmethod
    def source(cls, precision: str) -> str:
        """The quantised graph for INT8, else the FP32 graph: OpenVINO lowers it while compiling."""
        return "model.int8.onnx" if precision == _QUANTISED else "model.fp32.onnx"

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Whether this processor has the arithmetic of the precision."""
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return precision in cls.precisions and precision.upper() in capabilities

    @classmethod
    def version(cls) -> str:
        """OpenVINO's version without its build number."""
        return str(openvino.__version__).split("-")[0]

    @property
    def executed_as(self) -> str:
        """The precision that the compiled model reports: of its layers for INT8, else of its arithmetic."""
        if self.precision == _QUANTISED:
            return f"{_QUANTISED if self._integer_layers() else 'fp32'} on CPU"
        chosen = self._compiled.get_property(hint.inference_precision)
        names = {type_: name for name, type_ in _TYPES.items()}
        return f"{names.get(chosen, chosen.get_type_name())} on CPU"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        core = openvino.Core()
        options = {
            hint.inference_precision: _TYPES.get(self.precision, openvino.Type.f32),
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            properties.inference_num_threads: threads,
            properties.num_streams: streams,
        }
        try:
            self._compiled = core.compile_model(core.read_model(io.BytesIO(source)), "CPU", options)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise HalftoneError(
                f"OpenVINO {self.version()} can't compile {self.source(self.precision)} of {bundle.folder}: {reason}; "
                f"export it again with {bundle.manifest.files[self.source(self.precision)].made_by}"
            ) from None
        if not self.executed_as.startswith(self.precision):
            raise HalftoneError(
                f"this processor has no {self.precision} arithmetic (OpenVINO would run {self.executed_as}): "
                "use the variant openvino-fp32"
            )
        self._requests = threading.local()

    def _integer_layers(self) -> int:
        """How many convolutions and matrix products the compiled model runs in 8-bit integers."""
        layers = (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ops())
        return sum(
            str(layer["layerType"].value) in _WEIGHTED and str(layer["runtimePrecision"].value) in ("i8", "u8")
            for layer in layers
        )

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        # The output buffer belongs to the request and is overwritten by its next call: copy it out.
        return np.array(request.infer({0: pixels}, share_inputs=True, share_outputs=True)[0])


RUNTIME = OpenVino
