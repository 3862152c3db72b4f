"""Running a plan, the same for both editions of TensorRT; `export.runtimes` names them."""

from __future__ import annotations

import logging
import queue
import weakref
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from export.runtimes.base import Logits, Pixels, Runtime
from export.tensorrt.device import checked, cudart, gpu, has_gpu
from export.tensorrt.library import Library, installed, library
from export.tensorrt.profile import Profile
from export.tensorrt.recording import Recording
from export.tensorrt.sidecar import build_command, checked_sidecar, plan_name
from export.tensorrt.staging import Staging
from models.bundle import Bundle
from models.errors import HalftoneError

logger = logging.getLogger("bentoml.halftone")

RECORDED_SIZES = 16
"""Batch sizes whose work each stream keeps as CUDA graphs."""

_UNTIL_RECORDED = 2


class TensorRt(Runtime):
    """`engines/VARIANT.plan` on the first visible GPU; each stream has its own context and staging memory."""

    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32")

    recorded: ClassVar[bool] = True
    """Whether batches are launched as CUDA graphs that are recorded here; not where the library records its own."""

    @classmethod
    def load(cls, bundle: Bundle, *, precision: str, threads: int, streams: int = 1) -> Self:
        """Look for the library, the GPU and the plan, in this order, before anything is read."""
        cls.check_precision(precision)
        cls.require()
        if cls.source(precision) not in bundle.manifest.files:
            command = build_command(bundle.manifest.name, cls.name, precision)
            raise HalftoneError(f"{bundle.folder} has no {cls.source(precision)}: build it with {command}")
        return super().load(bundle, precision=precision, threads=threads, streams=streams)

    @classmethod
    def require(cls) -> None:
        """Raise HalftoneError where the library or a GPU is missing."""
        library(cls.name)
        gpu()

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Whether the library and a GPU are here."""
        return precision in cls.precisions and installed(cls.name) and has_gpu()

    @classmethod
    def source(cls, precision: str) -> str:
        """The plan of that precision."""
        return plan_name(cls.name, precision)

    @classmethod
    def version(cls) -> str:
        """TensorRT's version."""
        return library(cls.name).version

    @property
    def executed_as(self) -> str:
        """The precision that the plan's network was read back as, and the GPU."""
        return f"{self.precision} on {self._gpu.name}"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        edition, self._gpu = library(self.name), gpu()
        # A plan is executable code: its description is checked before it is deserialised.
        self._profile = checked_sidecar(
            bundle,
            self.name,
            self.precision,
            version=edition.version,
            compute_capability=self._gpu.compute_capability,
        ).profile
        # The engine must not outlive the runtime that made it.
        self._runtime = edition.api.Runtime(edition.logger)
        engine = self._deserialise(edition, source, bundle)
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._streams = streams
        try:
            for _ in range(streams):
                context = self._context(edition, engine)
                recorded = RECORDED_SIZES if self.recorded else 0
                self._slots.put(Slot(context, self.shape, self.classes, self._profile, recorded=recorded))
        except RuntimeError as error:
            raise HalftoneError(
                f"{self._gpu.name} can't hold {self.source(self.precision)} for {streams} calls at once ({error}; "
                f"{edition.complaints()}): use fewer threads, or build it with a smaller --max-batch"
            ) from None

    def _context(self, edition: Library, engine: Any) -> Any:
        """An execution context of the engine, None where the GPU has no room."""
        return engine.create_execution_context()

    def keep(self, sizes: Collection[int]) -> None:
        """Run batches of these sizes on every stream until all is compiled and recorded that they need."""
        slots = [self._slots.get() for _ in range(self._streams)]
        for slot in slots:
            for size in (size for size in sizes if size <= self._profile.maximum):
                for _ in range(_UNTIL_RECORDED):
                    slot.run(np.zeros((size, *self.shape), np.uint8))
            self._slots.put(slot)

    def _deserialise(self, edition: Library, source: bytes, bundle: Bundle) -> Any:
        edition.logger.errors.clear()
        engine = self._runtime.deserialize_cuda_engine(source)
        if engine is None:
            command = build_command(bundle.manifest.name, self.name, self.precision)
            raise HalftoneError(
                f"{self.name} {edition.version} can't load {bundle.folder / self.source(self.precision)} on "
                f"{self._gpu.name}: {edition.complaints()}; build it again here with {command}"
            )
        return engine

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        size = self._profile.maximum
        slot = self._slots.get()
        try:
            return np.concatenate([slot.run(pixels[start : start + size]) for start in range(0, len(pixels), size)])
        finally:
            self._slots.put(slot)


class Slot:
    """What one call at a time needs: an execution context, a stream and staging memory for the largest batch.

    A size that comes for the second time is recorded as a CUDA graph, copies included, and launched as one from then
    on. Right before a recording the same shape is executed: TensorRT does work after a change of shape that must not be
    part of it (TensorRT's developer guide, "CUDA Graphs").

    Args:
        context: an `IExecutionContext` of nobody else's.
        shape: of one picture.
        classes: number of logits.
        profile: batch sizes.
        recorded: how many sizes to keep recorded, the latest ones; 0 records none.

    Raises:
        RuntimeError: the GPU has no room for it.
    """

    def __init__(
        self, context: Any, shape: tuple[int, ...], classes: int, profile: Profile, *, recorded: int = 0
    ) -> None:
        if context is None:
            raise RuntimeError("no execution context")
        self._api, self._minimum, self._shape = cudart(), profile.minimum, shape
        self._context, self._recorded = context, recorded
        # One that the legacy default stream does not wait for: while it is recorded, work there would be an error.
        self._stream = checked(self._api.cudaStreamCreateWithFlags(self._api.cudaStreamNonBlocking))
        weakref.finalize(self, self._api.cudaStreamDestroy, self._stream).atexit = False
        self._pixels = Staging(self._api, (profile.maximum, *shape), np.uint8)
        self._logits = Staging(self._api, (profile.maximum, classes), np.float32)
        self._context.set_tensor_address("pixels", self._pixels.address)
        self._context.set_tensor_address("logits", self._logits.address)
        # None: seen once.
        self._recordings: OrderedDict[int, Recording | None] = OrderedDict()
        self._plain: set[int] = set()

    def run(self, pixels: Pixels) -> Logits:
        """Execute on uint8 (N, S, S, 3) with N at most the largest batch: float32 (N, classes).

        Raises:
            RuntimeError: the GPU reports an error.
        """
        count = len(pixels)
        rows = max(count, self._minimum)
        self._pixels.array[:count] = pixels
        self._pixels.array[count:rows] = 0
        self._launch(rows)
        checked(self._api.cudaStreamSynchronize(self._stream))
        return np.array(self._logits.array[:count])

    def _launch(self, rows: int) -> None:
        """Put the batch that lies in the staging memory on the stream."""
        recording = self._recordings.get(rows)
        if recording is not None:
            recording.launch()
            self._recordings.move_to_end(rows)
            return
        self._enqueue(rows)
        if rows in self._recordings:
            # This batch is answered without it: what TensorRT does after a change of shape is over when it is.
            checked(self._api.cudaStreamSynchronize(self._stream))
            self._record(rows)
        elif rows not in self._plain and self._recorded:
            self._remember(rows, None)

    def _record(self, rows: int) -> None:
        try:
            self._remember(rows, Recording(self._api, self._stream, lambda: self._enqueue(rows)))
        except RuntimeError as error:
            logger.warning("batches of %d are not launched as a CUDA graph: %s", rows, error)
            del self._recordings[rows]
            self._plain.add(rows)

    def _remember(self, rows: int, recording: Recording | None) -> None:
        self._recordings[rows] = recording
        self._recordings.move_to_end(rows)
        while len(self._recordings) > self._recorded:
            self._recordings.popitem(last=False)

    def _enqueue(self, rows: int) -> None:
        self._pixels.to_gpu(rows, self._stream)
        accepted = self._context.set_input_shape("pixels", (rows, *self._shape))
        if not accepted or not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"TensorRT refused to execute a batch of {rows}")
        self._logits.to_host(rows, self._stream)
