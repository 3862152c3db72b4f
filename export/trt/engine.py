"""Running a plan, the same for both editions of TensorRT; `export.runtimes` names them."""

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
    """`engines/VARIANT.plan` on the first visible GPU; each stream has its own context and staging memory."""

    precisions: ClassVar[tuple[str, ...]] = ("fp16", "fp32")

    sizes: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 16, 32)

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
        profile = checked_sidecar(
            bundle,
            self.name,
            self.precision,
            version=edition.version,
            compute_capability=self._gpu.compute_capability,
        ).profile
        # The engine must not outlive the runtime that made it.
        self._runtime = edition.api.Runtime(edition.logger)
        engine = self._deserialise(edition, source, bundle)
        slot = partial(
            Slot,
            lambda _: (self._context(edition, engine), slots.RECORDED_SIZES if self.recorded else 0),
            self.shape,
            self.classes,
            maximum=profile.maximum,
            filled_up=partial(max, profile.minimum),
        )
        try:
            self._slots = Slots(slot, streams)
        except GpuLostError:
            raise
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
        self._slots.keep(sizes)

    def _deserialise(self, edition: Library, source: bytes, bundle: Bundle) -> Any:
        edition.logger.errors.clear()
        with undisturbed:
            engine = self._runtime.deserialize_cuda_engine(source)
        if engine is None:
            command = build_command(bundle.manifest.name, self.name, self.precision)
            raise HalftoneError(
                f"{self.name} {edition.version} can't load {bundle.folder / self.source(self.precision)} on "
                f"{self._gpu.name}: {edition.complaints()}; build it again here with {command}"
            )
        return engine

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        return self._slots.run(pixels)
