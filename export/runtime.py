"""Abstract base class of the runtimes: pixels in, logits out, with shapes and types checked in one place."""

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
    """A loaded model; `run` is thread-safe.

    A new runtime is one file in `export/runtimes/` whose module attribute `RUNTIME` is a subclass. It names its
    precisions and the file of the bundle that each one is loaded from, and implements `_open` and `_infer`.

    Args:
        bundle: the opened bundle; it checks the hash of every file before the runtime deserialises it.
        precision: one of `precisions`.
        threads: total number of processor threads to use.
        streams: expected number of concurrent `run` calls; they share the threads.

    Raises:
        HalftoneError: the precision is unknown, a file is missing or damaged, or this machine can't run the model.
    """

    name: ClassVar[str]
    """The runtime's name, the first half of a variant such as `openvino-bf16`."""

    precisions: ClassVar[tuple[str, ...]]
    """The second halves, in order of preference."""

    sizes: ClassVar[tuple[int, ...]] = ()
    """Batch sizes that are compiled or recorded separately, so that a proof must run every one of them."""

    largest_batch: ClassVar[int | None] = None
    """Images that are executed at once at most: a larger batch is composed of several. None: no limit."""

    copies_weights: ClassVar[bool] = False
    """True if each batch size of `keep` has a copy of the weights: a size is then worth it only if it gains much."""

    streams: int
    """Maximum number of concurrent `run` calls; further calls wait."""

    inline: bool = False
    """True if `run` computes only in the calling thread, which keeps a core busy; otherwise that thread waits."""

    def __init__(self, bundle: Bundle, *, precision: str, threads: int, streams: int = 1) -> None:
        manifest = bundle.manifest
        self.shape = (manifest.input.size, manifest.input.size, 3)
        self.classes = len(manifest.labels)
        self.precision, self.streams = precision, streams
        data = bundle.read(self.source(precision))
        if self.source(precision).endswith(".onnx") and (external := external_locations(data)):
            # If the libraries get a graph as bytes, they search the current folder for these files, without any check.
            raise HalftoneError(
                f"{self.source(precision)} of {bundle.folder} stores tensors in {external[0]}, and runtimes load whole "
                f"graphs only: export it again with {bundle.command(self.source(precision))}"
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
        """Raise HalftoneError if this runtime does not have the precision."""
        if precision not in cls.precisions:
            known = ", ".join(f"{cls.name}-{each}" for each in cls.precisions)
            raise HalftoneError(f"there is no variant {cls.name}-{precision}: choose from {known}")

    @classmethod
    def supported(cls, precision: str) -> bool:
        """Return True if this machine can execute the precision, without loading a model."""
        return precision in cls.precisions

    @classmethod
    @abstractmethod
    def source(cls, precision: str) -> str:
        """Return the name of the bundle's file that the precision is loaded from."""

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Return the version of the library that executes the model."""

    @property
    @abstractmethod
    def executed_as(self) -> str:
        """The precision and device that the library reports for the loaded model, such as `bf16 on CPU`."""

    @abstractmethod
    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        """Deserialise the checked bytes of `source(precision)`."""

    @abstractmethod
    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        """Execute the model on C-contiguous pixels of the right shape; must be thread-safe."""

    def _infer_alone(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        """Execute the model as `_infer`, while no other call is expected."""
        return self._infer(pixels)

    def keep(self, sizes: Collection[int]) -> None:  # noqa: B027
        """Prepare for batches of mainly these sizes.

        A runtime may allocate buffers for them and free those of other sizes. Does nothing by default.
        """

    def prepare_alone(self) -> bool:
        """Prepare a second form that runs a single image on all threads, for times without other work.

        Returns:
            True if there is one and it is faster; `run(…, alone=True)` then uses it.
        """
        return False

    def keep_compiled(self) -> None:  # noqa: B027
        """Write what loads faster next time into the bundle's folder, which is not the bundle's content.

        Raises:
            OSError: the folder can't be written.
        """

    def run(self, pixels: Pixels, *, alone: bool = False) -> Logits:
        """Execute the model.

        Args:
            pixels: uint8 RGB of shape (N, S, S, 3) with N >= 1.
            alone: nothing else runs now; it may use all threads.

        Returns:
            float32 logits of shape (N, classes).

        Raises:
            ValueError: the pixels or the model's output have another type or shape.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != self.shape or not len(pixels):
            raise ValueError(
                f"pixels must be uint8 of shape (N, {', '.join(map(str, self.shape))}) with N >= 1, "
                f"not {pixels.dtype} of shape {pixels.shape}"
            )
        logits = (self._infer_alone if alone else self._infer)(np.ascontiguousarray(pixels))
        if logits.shape != (len(pixels), self.classes):
            raise ValueError(f"the model's output has shape {logits.shape}, not {(len(pixels), self.classes)}")
        return np.asarray(logits, dtype=np.float32)
