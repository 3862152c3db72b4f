"""Execute batches on a GPU; each batch in flight has its own stream, execution context and page-locked memory."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np

from export.cuda.device import GpuError, checked, cudart
from export.cuda.graph import Recording, undisturbed
from export.cuda.stream import Staging, Stream
from export.runtime import Logits, Pixels

logger = logging.getLogger("bentoml.halftone")

RECORDED_SIZES = 16
"""Number of batch sizes whose work each stream keeps as CUDA graphs."""

_RUNS_UNTIL_RECORDED = 2


class Context(Protocol):
    """Executes a model on a stream, as TensorRT's `IExecutionContext` does."""

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Set the GPU address of `pixels` or `logits`."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Set the shape of the next batch; return False if the shape is not supported."""

    def execute_async_v3(self, stream: int) -> bool:
        """Enqueue the work on the stream; return False on failure."""


class Slot:
    """Resources of one call at a time: an execution context, a stream and staging memory for the largest batch.

    When a batch size occurs for the second time, its work is recorded as a CUDA graph, copies included, and launched as
    a graph from then on. The same shape is executed right before a recording: after a change of shape, TensorRT does
    work that must not be recorded (TensorRT's developer guide, "CUDA Graphs").

    Args:
        context: creates an execution context for a stream, or None if the GPU has no memory for it. Also returns how
            many of the latest batch sizes to keep recorded, 0 for none.
        shape: of one image.
        classes: number of logits.
        maximum: largest batch.
        padded: returns the size, at most `maximum`, that a batch is padded to.

    Raises:
        RuntimeError: the GPU has no memory for it; GpuLostError if the GPU is lost.
    """

    def __init__(
        self,
        context: Callable[[Stream], tuple[Context | None, int]],
        shape: tuple[int, ...],
        classes: int,
        *,
        maximum: int,
        padded: Callable[[int], int],
    ) -> None:
        self._api, self._shape, self.maximum, self._padded = cudart(), shape, maximum, padded
        owner = Stream(self._api)
        self._stream = owner.handle
        try:
            with undisturbed:
                created, self._max_recorded = context(owner)
        except Exception:
            self._raise_if_lost()
            raise
        if created is None:
            raise RuntimeError("no execution context")
        self._context = created
        self._pixels = Staging(self._api, (maximum, *shape), np.uint8)
        self._logits = Staging(self._api, (maximum, classes), np.float32)
        self._context.set_tensor_address("pixels", self._pixels.address)
        self._context.set_tensor_address("logits", self._logits.address)
        # Batch size to recording; None: executed once, not yet recorded.
        self._recordings: OrderedDict[int, Recording | None] = OrderedDict()
        self._unrecordable: set[int] = set()
        self._executed: set[int] = set()
        # The last attribute: attributes are released in order, and the stream must outlive its users.
        self._owner = owner

    def run(self, pixels: Pixels) -> Logits:
        """Execute the model on uint8 (N, S, S, 3), N up to `maximum`; return float32 (N, classes).

        Raises:
            GpuError: the GPU reports an error; GpuLostError if the GPU is lost.
        """
        try:
            return self._run(pixels)
        except RuntimeError as error:
            self._raise_if_lost()
            raise error if isinstance(error, GpuError) else GpuError(str(error)) from error

    def _raise_if_lost(self) -> None:
        """Raise GpuLostError if the GPU is lost: the status comes from CUDA, as libraries reword its errors."""
        checked(self._api.cudaStreamSynchronize(self._stream))

    def _run(self, pixels: Pixels) -> Logits:
        count = len(pixels)
        rows = self._padded(count)
        self._pixels.array[:count] = pixels
        self._pixels.array[count:rows] = 0
        self._launch(rows)
        checked(self._api.cudaStreamSynchronize(self._stream))
        return np.array(self._logits.array[:count])

    def __del__(self) -> None:
        if sys.is_finalizing():
            # The thread that holds the lock will never release it.
            return
        # Attributes may be missing, if the constructor failed.
        with undisturbed:
            for name in ("_recordings", "_context"):
                self.__dict__.pop(name, None)

    def keep(self, size: int) -> None:
        """Run batches of this size until its kernels are compiled and its CUDA graph is recorded."""
        with undisturbed:
            for _ in range(_RUNS_UNTIL_RECORDED):
                self.run(np.zeros((size, *self._shape), np.uint8))

    def _launch(self, rows: int) -> None:
        """Enqueue the batch in the staging memory on the stream."""
        recording = self._recordings.get(rows)
        if recording is not None:
            recording.launch()
            self._recordings.move_to_end(rows)
            return
        if rows in self._executed:
            self._enqueue(rows)
        else:
            # At the first batch of a size, the library creates the handles that it still lacks.
            with undisturbed:
                self._enqueue(rows)
            self._executed.add(rows)
        if rows in self._recordings:
            self._record(rows)
        elif self._max_recorded and rows not in self._unrecordable:
            self._remember(rows, None)

    def _record(self, rows: int) -> None:
        # If the lock is taken, possibly for seconds, leave the recording to the next batch of this size.
        if not undisturbed.acquire(blocking=False):
            return
        try:
            # The present batch runs unrecorded; after it, TensorRT has done its work for the change of shape.
            checked(self._api.cudaStreamSynchronize(self._stream))
            self._remember(rows, Recording(self._api, self._stream, lambda: self._enqueue(rows)))
        except RuntimeError as error:
            logger.warning("batches of %d are not launched as a CUDA graph: %s", rows, error)
            del self._recordings[rows]
            self._unrecordable.add(rows)
        finally:
            undisturbed.release()

    def _remember(self, rows: int, recording: Recording | None) -> None:
        self._recordings[rows] = recording
        self._recordings.move_to_end(rows)
        while len(self._recordings) > self._max_recorded:
            self._recordings.popitem(last=False)

    def _enqueue(self, rows: int) -> None:
        self._pixels.to_gpu(rows, self._stream)
        accepted = self._context.set_input_shape("pixels", (rows, *self._shape))
        if not accepted or not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"the GPU's runtime refused to execute a batch of {rows}")
        self._logits.to_host(rows, self._stream)


class Slots:
    """Pool of a model's slots; a call waits until a slot is free.

    Args:
        create: creates a slot.
        count: number of slots.

    Raises:
        RuntimeError: the GPU has no memory for the slots.
    """

    def __init__(self, create: Callable[[], Slot], count: int) -> None:
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._count = count
        # Two callers that each take the slots one by one could deadlock.
        self._taking_all = threading.Lock()
        for _ in range(count):
            self._free.put(create())

    def run(self, pixels: Pixels) -> Logits:
        """Execute the model on uint8 (N, S, S, 3), split into batches that fit; return float32 (N, classes).

        Thread-safe.

        Raises:
            GpuError: the GPU reports an error; GpuLostError if the GPU is lost.
        """
        slot = self._free.get()
        try:
            parts = range(0, len(pixels), slot.maximum)
            return np.concatenate([slot.run(pixels[start : start + slot.maximum]) for start in parts])
        finally:
            self._free.put(slot)

    def keep(self, sizes: Collection[int]) -> None:
        """Run batches of these sizes in every slot until their kernels are compiled and their CUDA graphs recorded.

        Raises:
            GpuError: as `run`.
        """
        with self._taking_all:
            slots = [self._free.get() for _ in range(self._count)]
        try:
            for slot in slots:
                for size in (size for size in sizes if size <= slot.maximum):
                    slot.keep(size)
        finally:
            for slot in slots:
                self._free.put(slot)
