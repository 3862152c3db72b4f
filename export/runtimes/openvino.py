"""OpenVINO on the CPU: FP32, bfloat16 arithmetic where the processor has it (AVX-512 BF16, AMX), or a quantised graph.

In a graph with QuantizeLinear/DequantizeLinear pairs OpenVINO runs the layers between them in 8-bit integers, and the
others in FP32.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Collection
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import openvino
from openvino import properties
from openvino.properties import hint

from export.runtimes.base import Pixels, Runtime
from models.bundle import Bundle
from models.errors import HalftoneError
from models.host import cores

_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
_QUANTISED = "int8"
# As the compiled model's own description names its layers.
_WEIGHTED = ("Convolution", "FullyConnected", "MatMul")
_SIZES = (8, 4, 2, 1)
"""Batches are compiled for these numbers of pictures; others are put together from them."""


class OpenVino(Runtime):
    """The bundle's graph compiled for this CPU and each size of batches, with one infer request a calling thread."""

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
        chosen = self._compiled[1].get_property(hint.inference_precision)
        names = {type_: name for name, type_ in _TYPES.items()}
        return f"{names.get(chosen, chosen.get_type_name())} on CPU"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        core = openvino.Core()
        options = {
            hint.inference_precision: _TYPES.get(self.precision, openvino.Type.f32),
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            properties.inference_num_threads: threads,
            properties.num_streams: streams,
            # Pinned threads start from the first core in every process: several processes that share the cores would
            # all compute on the same ones.
            hint.enable_cpu_pinning: threads >= cores(),
        }
        self._compiled: dict[int, openvino.CompiledModel] = {}
        self._compiling = threading.Lock()
        self._requests = threading.local()
        try:
            self._graph = core.read_model(io.BytesIO(source))
            self._compile = partial(core.compile_model, self._graph, "CPU", options)
            self._for_batch(1)
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

    def keep(self, sizes: Collection[int]) -> None:
        """Free what was compiled for batches of other sizes."""
        with self._compiling:
            self._compiled = {size: compiled for size, compiled in self._compiled.items() if size in {1, *sizes}}

    def _for_batch(self, size: int) -> openvino.CompiledModel:
        """The graph for batches of exactly this size, compiled when the first one comes."""
        with self._compiling:
            if size not in self._compiled:
                self._graph.reshape([size, *self.shape])
                self._compiled[size] = self._compile()
            return self._compiled[size]

    def _integer_layers(self) -> int:
        """How many convolutions and matrix products the compiled model runs in 8-bit integers."""
        layers = (node.get_rt_info() for node in self._compiled[1].get_runtime_model().get_ops())
        return sum(
            str(layer["layerType"].value) in _WEIGHTED and str(layer["runtimePrecision"].value) in ("i8", "u8")
            for layer in layers
        )

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        # Fixed shapes run about a tenth faster than one graph for any number of pictures, and answer a picture alike
        # whatever the batch that it is in.
        parts, place = [], 0
        while place < len(pixels):
            size = next(size for size in _SIZES if size <= len(pixels) - place)
            parts.append(self._run_exactly(pixels[place : place + size]))
            place += size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_exactly(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        requests = self._requests.__dict__.setdefault("by_size", {})
        request = requests.get(len(pixels))
        if request is None:
            request = requests[len(pixels)] = self._for_batch(len(pixels)).create_infer_request()
        # The output buffer belongs to the request and is overwritten by its next call: copy it out.
        return np.array(request.infer({0: pixels}, share_inputs=True, share_outputs=True)[0])


RUNTIME = OpenVino
