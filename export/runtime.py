"""What every runtime promises: pixels in, logits out, shapes and types checked in one place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from models.bundle.bundle import Bundle
from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


class Runtime(ABC):
    """A loaded model. `run` may be called from several threads at once.

    A new runtime is one file in this folder whose module attribute `RUNTIME` is a subclass: it names its precisions,
    says which file of the bundle each one is loaded from, and implements `_open` and `_infer`.

    Args:
        bundle: the opened bundle; files are read through it, so their hashes are checked before deserialising.
        precision: one of `precisions`.
        threads: number of processor threads to use in all.
        streams: number of `run` calls that are expected at once; they share the threads.

    Raises:
        HalftoneError: the precision is unknown, a file is missing or damaged, or the runtime can't do what was asked.
    """

    name: ClassVar[str]
    """The runtime's name, the first half of a variant such as `openvino-bf16`."""

    precisions: ClassVar[tuple[str, ...]]
    """The second halves, in the order of preference for trying them."""

    sizes: ClassVar[tuple[int, ...]] = ()
    """Batch sizes that are compiled or recorded each for itself, so that a proof has to run every one of them."""

    streams: int
    """Number of `run` calls that execute at once; more wait for one another."""

    inline: bool = False
    """Whether `run` computes in the thread that calls it alone, which then keeps a core busy; else it waits."""

    def __init__(self, bundle: Bundle, *, precision: str, threads: int, streams: int = 1) -> None:
        manifest = bundle.manifest
        self.shape = (manifest.input.size, manifest.input.size, 3)
        self.classes = len(manifest.labels)
        self.precision, self.streams = precision, streams
        data = bundle.read(self.source(precision))
        if self.source(precision).endswith(".onnx") and (outer := external_locations(data)):
            # Given a graph as bytes, the libraries look for these files in the current folder, where nobody checked.
            raise HalftoneError(
                f"{self.source(precision)} of {bundle.folder} keeps tensors in {outer[0]}, and only whole graphs are "
                f"run: export it again with {bundle.manifest.files[self.source(precision)].made_by}"
            )
        self._open(data, bundle, threads, streams)

    @classmethod
    def load(cls, bundle: Bundle, *, precision: str, threads: int, streams: int = 1) -> Self:
        """Check the arguments and open the model; arguments and errors as for the class."""
        cls.check_precision(precision)
        if threads < 1 or streams < 1:
            raise HalftoneError(f"threads and streams must be at least 1, not {threads} and {streams}")
        bundle.fresh(cls.source(precision))
        return cls(bundle, precision=precision, threads=threads, streams=streams)

    @classmethod
    def check_precision(cls, precision: str) -> None:
        """Raise HalftoneError for a precision that this runtime does not have."""
        if precision not in cls.precisions:
            known = ", ".join(f"{cls.name}-{each}" for each in cls.precisions)
            raise HalftoneError(f"there is no variant {cls.name}-{precision}: choose from {known}")

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Whether this machine can execute one of `precisions` at all; asked before anything is loaded."""
        return precision in cls.precisions

    @classmethod
    @abstractmethod
    def source(cls, precision: str) -> str:
        """The bundle's file that the precision is loaded from."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The version of the library that executes the model."""

    @property
    @abstractmethod
    def executed_as(self) -> str:
        """The precision and device that the library reports for the loaded model, such as `bf16 on CPU`."""

    @abstractmethod
    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        """Deserialise the checked bytes of `source(precision)`."""

    @abstractmethod
    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        """Execute on C-contiguous pixels of the right shape; thread-safe."""

    def keep(self, sizes: Collection[int]) -> None:  # noqa: B027
        """Batches will mostly have one of these sizes from now on: a good moment to free what was made for others, and
        to make what is missing. Optional."""

    def run(self, pixels: Pixels) -> Logits:
        """Execute the model.

        Args:
            pixels: uint8 RGB of shape (N, S, S, 3) with N >= 1.

        Returns:
            float32 logits of shape (N, classes).

        Raises:
            ValueError: the pixels have another type or shape, or the model answered in another shape.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != self.shape or not len(pixels):
            raise ValueError(
                f"pixels must be uint8 of shape (N, {', '.join(map(str, self.shape))}) with N >= 1, "
                f"not {pixels.dtype} of shape {pixels.shape}"
            )
        logits = self._infer(np.ascontiguousarray(pixels))
        if logits.shape != (len(pixels), self.classes):
            raise ValueError(f"the model answered {logits.shape} where {(len(pixels), self.classes)} was expected")
        return np.asarray(logits, dtype=np.float32)
