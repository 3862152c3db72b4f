"""OpenVINO on the CPU: FP32, bfloat16 if the processor supports it (AVX-512 BF16, AMX), or a quantised graph.

In a graph with QuantizeLinear/DequantizeLinear pairs, OpenVINO runs the layers between them in 8-bit integers and the
others in FP32.
"""

from __future__ import annotations

import functools
import io
import queue
import statistics
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import openvino
from openvino import properties
from openvino.properties import hint

from export.runtime import Pixels, Runtime
from models.bundle.bundle import Bundle
from models.bundle.kept import MOST_BYTES, Blob, KeptFile
from models.common.errors import HalftoneError
from models.common.host import cores, host

_TYPES = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}
_QUANTISED = "int8"
# Layer types in the description of a compiled model.
_WEIGHTED = ("Convolution", "FullyConnected", "MatMul")
_SIZES = (8, 4, 2, 1)
"""Batch sizes that the graph is compiled for; other batches are composed of them."""

_ALONE_GAIN, _ALONE_RUNS = 1.15, 15
"""Least gain of a single image on all threads that is worth another copy of the weights, and runs to measure it."""

MAX_COPIED = 512 * 2**20
"""Limit on the total bytes of weights if each stream has its own copy, computed from the size of the file."""

_MAX_MODELS = 32
"""Limit on the models compiled for separate streams (those of eight streams), as each one delays the start."""


@functools.cache
def _core() -> openvino.Core:
    """Return the only Core of this process.

    A Core moves the stack of signal handlers to memory of its own, and when it ends it puts back the one that it found.
    If two of them did not end in the reverse order, that one was unmapped, and the next signal was a SIGSEGV (OpenVINO
    2026.4, class CPUSpecialSetup).
    """
    return openvino.Core()


Compiled = dict[int, openvino.CompiledModel]
"""Batch size to the graph compiled for it."""


class Slot:
    """Inference requests of one call at a time.

    Args:
        compiled: compiled graphs, owned by this slot or shared by all slots.
    """

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.requests: dict[int, openvino.InferRequest] = {}


class OpenVino(Runtime):
    """The bundle's graph, compiled for this CPU and each batch size.

    A model compiled for one stream runs in the calling thread. A model compiled for several streams runs in threads of
    OpenVINO, and waking them costs a tenth of the service's throughput on two cores. Small models are therefore
    compiled for each stream separately; large models share their weights.
    """

    name: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("bf16", "fp32", _QUANTISED)
    largest_batch: ClassVar[int | None] = _SIZES[0]
    copies_weights: ClassVar[bool] = True

    @classmethod
    def source(cls, precision: str) -> str:
        """Return the quantised graph for INT8, else the FP32 graph, which OpenVINO converts while compiling."""
        return "model.int8.onnx" if precision == _QUANTISED else "model.fp32.onnx"

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Return True if this processor supports the arithmetic of the precision."""
        capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return precision in cls.precisions and precision.upper() in capabilities

    @classmethod
    def version(cls) -> str:
        """Return OpenVINO's version without its build number."""
        return str(openvino.__version__).split("-")[0]

    @property
    def executed_as(self) -> str:
        """Precision that the compiled model reports: of its layers for INT8, else of its arithmetic."""
        if self.precision == _QUANTISED:
            return f"{_QUANTISED if self._integer_layers() else 'fp32'} on CPU"
        chosen = self._models[0][1].get_property(hint.inference_precision)
        names = {type_: name for name, type_ in _TYPES.items()}
        return f"{names.get(chosen, chosen.get_type_name())} on CPU"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        self._compiling = threading.Lock()
        models = streams * len(_SIZES)
        separate = streams > 1 and models <= _MAX_MODELS and models * len(source) <= MAX_COPIED
        self.inline = threads <= streams and (separate or streams == 1)
        self._streams = streams
        self._sizes: tuple[int, ...] = _SIZES
        self._threads = threads
        self._alone: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        self._options = _options(self.precision, max(1, threads // streams) if separate else threads)
        self._options[properties.num_streams] = 1 if separate else streams
        # In every process and every model, pinning starts at the first core: several processes or models would all
        # compute on the same cores.
        self._options[hint.enable_cpu_pinning] = threads >= cores() and not separate
        self._models: list[Compiled] = [{} for _ in range(streams if separate else 1)]
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        # Held while slots are awaited: without it, calls in many threads could keep `keep` from ever having all slots.
        self._turn = threading.Lock()
        for stream in range(streams):
            self._free.put(Slot(self._models[stream if separate else 0]))
        self._read, self._source_bytes = partial(bundle.read, self.source(self.precision)), len(source)
        self._file = self._kept_file(bundle)
        # Last: when this object goes, what refers to the weights in the blobs goes before them.
        self._blobs: dict[int, Blob] = {}
        try:
            self._kept = self._import_kept()
            if not self._kept:
                self._compile(1, source)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise HalftoneError(
                f"OpenVINO {self.version()} can't compile {self.source(self.precision)} of {bundle.folder}: {reason}; "
                f"export it again with {bundle.command(self.source(self.precision))}"
            ) from None
        if not self.executed_as.startswith(self.precision):
            raise HalftoneError(
                f"this processor does not support {self.precision} arithmetic (OpenVINO would run {self.executed_as}): "
                "use the variant openvino-fp32"
            )

    def keep(self, sizes: Collection[int]) -> None:
        """Compose batches of these sizes, and of single images; free what other sizes need, once no call is running."""
        kept = {1, *sizes}
        self._sizes = tuple(size for size in _SIZES if size in kept)
        with self._turn:
            slots = [self._free.get() for _ in range(self._streams)]
        for slot in slots:
            slot.requests = {size: request for size, request in slot.requests.items() if size in kept}
        with self._compiling:
            for models in self._models:
                for size in models.keys() - kept:
                    del models[size]
            for size in self._blobs.keys() - kept:
                del self._blobs[size]
        for slot in slots:
            self._free.put(slot)

    def _prepare(self, size: int) -> None:
        """Compile the graph for batches of exactly this size, for all streams, unless it is."""
        with self._compiling:
            if size not in self._models[-1]:
                self._compile(size, self._read())

    def _compile(self, size: int, source: bytes) -> None:
        """Compile the graph once, and import the compiled form for each stream: a fifth of the time, without the graph.

        For a single stream the compiled graph itself is used.
        """
        graph = _core().read_model(io.BytesIO(source))
        graph.reshape([size, *self.shape])
        compiled = _core().compile_model(graph, "CPU", self._options)
        if len(self._models) == 1:
            self._models[0][size] = compiled
            return
        self._blobs[size] = _exported(compiled)
        for models in self._models:
            models[size] = _import(self._blobs[size], self._options)

    def _kept_file(self, bundle: Bundle) -> KeptFile:
        conditions = {
            "source_sha256": bundle.manifest.files[self.source(self.precision)].sha256,
            "library": openvino.__version__,
            "options": sorted(f"{option}={value}" for option, value in self._options.items()),
            "host": host(),
        }
        return KeptFile(bundle.folder / f"compiled-{self.name}-{self.precision}.bin", conditions)

    def _import_kept(self) -> bool:
        """Import the kept form for each stream; return False if there is none, or OpenVINO refuses it."""
        if (blob := self._file.read()) is None:
            return False
        self._blobs[1] = blob
        try:
            for models in self._models:
                models[1] = _import(blob, self._options)
        except RuntimeError:
            for models in self._models:
                models.clear()
            self._blobs.clear()
            return False
        return True

    def keep_compiled(self) -> None:
        """Write the compiled form of single images into the bundle's folder, unless it is there or would be large."""
        if self._kept or self._source_bytes > MOST_BYTES // 2:
            return
        self._file.write(self._blobs[1] if 1 in self._blobs else _exported(self._models[0][1]))
        self._kept = True

    def prepare_alone(self) -> bool:
        """Prepare a single image on all threads; keep that if it takes clearly less time."""
        if not self.inline or self._threads < 2 or 1 not in self._blobs:
            return False
        request = _import(self._blobs[1], _options(self.precision, self._threads)).create_infer_request()
        pixels = np.zeros((1, *self.shape), np.uint8)
        if _times_faster(partial(_run, request, pixels), partial(self._infer, pixels)) < _ALONE_GAIN:
            return False
        self._alone.put(request)
        return True

    def _infer_alone(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        if len(pixels) > 1:
            return self._infer(pixels)
        try:
            request = self._alone.get_nowait()
        except queue.Empty:
            # Another call has it, or there is none.
            return self._infer(pixels)
        try:
            return _run(request, pixels)
        finally:
            self._alone.put(request)

    def _integer_layers(self) -> int:
        """Count the convolutions and matrix products that the compiled model runs in 8-bit integers."""
        layers = (node.get_rt_info() for node in self._models[0][1].get_runtime_model().get_ops())
        return sum(
            str(layer["layerType"].value) in _WEIGHTED and str(layer["runtimePrecision"].value) in ("i8", "u8")
            for layer in layers
        )

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        # Fixed shapes run a tenth faster than one graph for any batch size, and an image gets the same logits in every
        # batch.
        parts, start = [], 0
        while start < len(pixels):
            size = next(size for size in self._sizes if size <= len(pixels) - start)
            parts.append(self._run_exactly(pixels[start : start + size]))
            start += size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_exactly(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        size = len(pixels)
        if size not in self._models[-1]:
            # Before a slot is taken: other calls use all of them meanwhile.
            self._prepare(size)
        # The slot that was returned last: its memory is most likely in the processor's caches.
        with self._turn:
            slot = self._free.get()
        try:
            if size not in slot.requests:
                self._prepare(size)
                slot.requests[size] = slot.compiled[size].create_infer_request()
            return _run(slot.requests[size], pixels)
        finally:
            self._free.put(slot)


def _options(precision: str, threads: int) -> dict[str, Any]:
    """Return the options for one stream with some threads."""
    return {
        hint.inference_precision: _TYPES.get(precision, openvino.Type.f32),
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.enable_cpu_pinning: False,
        properties.inference_num_threads: threads,
        properties.num_streams: 1,
    }


def _exported(compiled: openvino.CompiledModel) -> Blob:
    return np.frombuffer(bytearray(compiled.export_model().getbuffer()), np.uint8)


def _import(blob: Blob, options: dict[str, Any]) -> openvino.CompiledModel:
    # The compiled model refers to the weights in the blob, and does not keep it.
    return _core().import_model(openvino.Tensor(blob, shared_memory=True), "CPU", options)


def _run(request: openvino.InferRequest, pixels: Pixels) -> npt.NDArray[np.floating]:
    # The output buffer belongs to the request and is overwritten by its next call: copy it out.
    return np.array(request.infer({0: pixels}, share_inputs=True, share_outputs=True)[0])


def _times_faster(run: Callable[[], object], than: Callable[[], object]) -> float:
    """Return the median ratio of two durations, taken in turns: the speed of a shared machine changes at any time."""
    run(), than()
    ratios = []
    for _ in range(_ALONE_RUNS):
        start = time.perf_counter()
        run()
        between = time.perf_counter()
        than()
        ratios.append((time.perf_counter() - between) / (between - start))
    return statistics.median(ratios)


RUNTIME = OpenVino
