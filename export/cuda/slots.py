"""Batches on a GPU: each in flight has a stream, an execution context and page-locked memory of its own."""

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
"""Batch sizes whose work each stream keeps as CUDA graphs."""

_UNTIL_RECORDED = 2


class Context(Protocol):
    """What executes a model on a stream; TensorRT's `IExecutionContext` is one."""

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Where in the GPU's memory `pixels` lie, or where `logits` go."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """The shape of the next batch; False where it can't be."""

    def execute_async_v3(self, stream: int) -> bool:
        """Put the work on the stream; False where that failed."""


class Slot:
    """What one call at a time needs: an execution context, a stream and staging memory for the largest batch.

    A size that comes for the second time is recorded as a CUDA graph, copies included, and launched as one from then
    on. Right before a recording the same shape is executed: TensorRT does work after a change of shape that must not be
    part of it (TensorRT's developer guide, "CUDA Graphs").

    Args:
        context: given the stream, makes an execution context of nobody else's, None where there is no room; and says
            how many sizes to keep recorded, the latest ones, 0 for none.
        shape: of one picture.
        classes: number of logits.
        maximum: largest batch.
        filled_up: how large a batch becomes before it is executed, at most `maximum`.

    Raises:
        RuntimeError: the GPU has no room for it; GpuLostError where it is lost.
    """

    def __init__(
        self,
        context: Callable[[Stream], tuple[Context | None, int]],
        shape: tuple[int, ...],
        classes: int,
        *,
        maximum: int,
        filled_up: Callable[[int], int],
    ) -> None:
        self._api, self._shape, self.maximum, self._filled_up = cudart(), shape, maximum, filled_up
        owner = Stream(self._api)
        self._stream = owner.handle
        try:
            with undisturbed:
                made, self._recorded = context(owner)
        except Exception:
            self._raise_if_lost()
            raise
        if made is None:
            raise RuntimeError("no execution context")
        self._context = made
        self._pixels = Staging(self._api, (maximum, *shape), np.uint8)
        self._logits = Staging(self._api, (maximum, classes), np.float32)
        self._context.set_tensor_address("pixels", self._pixels.address)
        self._context.set_tensor_address("logits", self._logits.address)
        # None: seen once.
        self._recordings: OrderedDict[int, Recording | None] = OrderedDict()
        self._plain: set[int] = set()
        self._made: set[int] = set()
        # The last of the attributes: they are given back in their order, and what used the stream before it.
        self._owner = owner

    def run(self, pixels: Pixels) -> Logits:
        """Execute on uint8 (N, S, S, 3) with N at most the largest batch: float32 (N, classes).

        Raises:
            GpuError: the GPU reports an error; GpuLostError where it will report nothing else.
        """
        try:
            return self._run(pixels)
        except RuntimeError as error:
            self._raise_if_lost()
            raise error if isinstance(error, GpuError) else GpuError(str(error)) from error

    def _raise_if_lost(self) -> None:
        """Ask for what CUDA said again, as libraries put it in words of their own."""
        checked(self._api.cudaStreamSynchronize(self._stream))

    def _run(self, pixels: Pixels) -> Logits:
        count = len(pixels)
        rows = self._filled_up(count)
        self._pixels.array[:count] = pixels
        self._pixels.array[count:rows] = 0
        self._launch(rows)
        checked(self._api.cudaStreamSynchronize(self._stream))
        return np.array(self._logits.array[:count])

    def __del__(self) -> None:
        if sys.is_finalizing():
            # Whoever holds the lock will not give it back any more.
            return
        # Also where the constructor failed.
        with undisturbed:
            for name in ("_recordings", "_context"):
                self.__dict__.pop(name, None)

    def keep(self, size: int) -> None:
        """Run a batch of this size until all is compiled and recorded that it needs."""
        with undisturbed:
            for _ in range(_UNTIL_RECORDED):
                self.run(np.zeros((size, *self._shape), np.uint8))

    def _launch(self, rows: int) -> None:
        """Put the batch that lies in the staging memory on the stream."""
        recording = self._recordings.get(rows)
        if recording is not None:
            recording.launch()
            self._recordings.move_to_end(rows)
            return
        if rows in self._made:
            self._enqueue(rows)
        else:
            # A library makes what it still lacks when a size comes first.
            with undisturbed:
                self._enqueue(rows)
            self._made.add(rows)
        if rows in self._recordings:
            self._record(rows)
        elif self._recorded and rows not in self._plain:
            self._remember(rows, None)

    def _record(self, rows: int) -> None:
        # Where something is made or freed just now, which can take seconds, the next batch of this size comes soon.
        if not undisturbed.acquire(blocking=False):
            return
        try:
            # This batch is answered without it: what TensorRT does after a change of shape is over when it is.
            checked(self._api.cudaStreamSynchronize(self._stream))
            self._remember(rows, Recording(self._api, self._stream, lambda: self._enqueue(rows)))
        except RuntimeError as error:
            logger.warning("batches of %d are not launched as a CUDA graph: %s", rows, error)
            del self._recordings[rows]
            self._plain.add(rows)
        finally:
            undisturbed.release()

    def _remember(self, rows: int, recording: Recording | None) -> None:
        self._recordings[rows] = recording
        self._recordings.move_to_end(rows)
        while len(self._recordings) > self._recorded:
            self._recordings.popitem(last=False)

    def _enqueue(self, rows: int) -> None:
        self._pixels.to_gpu(rows, self._stream)
        accepted = self._context.set_input_shape("pixels", (rows, *self._shape))
        if not accepted or not self._context.execute_async_v3(int(self._stream)):
            raise RuntimeError(f"the GPU's runtime refused to execute a batch of {rows}")
        self._logits.to_host(rows, self._stream)


class Slots:
    """The slots of a model; as many calls run at once, and others wait for one.

    Args:
        make: makes a slot.
        count: how many.

    Raises:
        RuntimeError: the GPU has no room for them.
    """

    def __init__(self, make: Callable[[], Slot], count: int) -> None:
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._count = count
        # Two that take slots one by one could each wait for the other's.
        self._taking_all = threading.Lock()
        for _ in range(count):
            self._free.put(make())

    def run(self, pixels: Pixels) -> Logits:
        """Execute on uint8 (N, S, S, 3), cut into batches that fit: float32 (N, classes); thread-safe.

        Raises:
            GpuError: the GPU reports an error; GpuLostError where it will report nothing else.
        """
        slot = self._free.get()
        try:
            parts = range(0, len(pixels), slot.maximum)
            return np.concatenate([slot.run(pixels[start : start + slot.maximum]) for start in parts])
        finally:
            self._free.put(slot)

    def keep(self, sizes: Collection[int]) -> None:
        """Run batches of these sizes in every slot until all is compiled and recorded that they need.

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
