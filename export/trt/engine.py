"""Base class of the two runtimes that execute a TensorRT plan (`export.runtimes`)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from export.cuda import slots
from export.cuda.device import GpuLostError, gpu, has_gpu
from export.cuda.graph import undisturbed
from export.cuda.slots import Slot, Slots
from export.runtime import Pixels, Runtime
from export.trt.library import Library, installed, library
from export.trt.sidecar import build_command, checked_sidecar, plan_name
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError


class TensorRt(Runtime):
    """`engines/VARIANT.plan` on the first visible GPU; each stream has its own execution context and staging memory."""

    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32")

    sizes: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16, 32)

    records_graphs: ClassVar[bool] = True
    """True if `export.cuda` records CUDA graphs of the batches; False if the library records its own."""

    @classmethod
    def load(cls, bundle: Bundle, *, precision: str, threads: int, streams: int = 1) -> Self:
        """Check the library, the GPU and the plan's existence, in this order, before reading any file."""
        cls.check_precision(precision)
        cls.require()
        if cls.source(precision) not in bundle.manifest.files:
            command = build_command(bundle.name, cls.name, precision)
            raise HalftoneError(f"{bundle.folder} has no {cls.source(precision)}: build it with {command}")
        return super().load(bundle, precision=precision, threads=threads, streams=streams)

    @classmethod
    def require(cls) -> None:
        """Raise HalftoneError if the library or a GPU is missing."""
        library(cls.name)
        gpu()

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Return True if the library is installed and this machine has a GPU."""
        return precision in cls.precisions and installed(cls.name) and has_gpu()

    @classmethod
    def source(cls, precision: str) -> str:
        """Return the plan of that precision."""
        return plan_name(cls.name, precision)

    @classmethod
    def version(cls) -> str:
        """Return TensorRT's version."""
        return library(cls.name).version

    @property
    def executed_as(self) -> str:
        """Precision that was read back from the built network, and the GPU."""
        return f"{self.precision} on {self._gpu.name}"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        edition, self._gpu = library(self.name), gpu()
        # A plan is executable code: its description is checked before it is deserialised.
        profile = checked_sidecar(
            bundle,
            self.name,
            self.precision,
            version=edition.version,
            compute_capability=self._gpu.compute_capability,
        ).profile
        # The engine must not outlive the runtime that created it.
        self._runtime = edition.api.Runtime(edition.logger)
        engine = self._deserialise(edition, source, bundle)
        slot = partial(
            Slot,
            lambda _: (self._context(edition, engine), slots.RECORDED_SIZES if self.records_graphs else 0),
            self.shape,
            self.classes,
            maximum=profile.maximum,
            padded=partial(max, profile.minimum),
        )
        try:
            self._slots = Slots(slot, streams)
        except GpuLostError:
            raise
        except RuntimeError as error:
            raise HalftoneError(
                f"{self._gpu.name} has no memory for {self.source(self.precision)} with {streams} concurrent calls "
                f"({error}; {edition.last_errors()}): use fewer threads, or build it with a smaller --max-batch"
            ) from None

    def _context(self, edition: Library, engine: Any) -> Any:
        """Create an execution context of the engine; return None if the GPU has no memory for it."""
        return engine.create_execution_context()

    def keep(self, sizes: Collection[int]) -> None:
        """Run batches of these sizes on every stream until their kernels are compiled and their graphs recorded."""
        self._slots.keep(sizes)

    def _deserialise(self, edition: Library, source: bytes, bundle: Bundle) -> Any:
        edition.logger.errors.clear()
        with undisturbed:
            engine = self._runtime.deserialize_cuda_engine(source)
        if engine is None:
            command = build_command(bundle.name, self.name, self.precision)
            raise HalftoneError(
                f"{self.name} {edition.version} can't load {bundle.folder / self.source(self.precision)} on "
                f"{self._gpu.name}: {edition.last_errors()}; build it again here with {command}"
            )
        return engine

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        return self._slots.run(pixels)
