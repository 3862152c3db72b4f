"""A model that answers: a proven variant of a bundle behind a queue of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from export.cuda.device import GpuLostError
from export.parity.record import ParityRecord
from export.runtime import Logits, Pixels, Runtime
from models.bundle.manifest import Manifest
from models.preprocess import transform as preprocess
from models.preprocess.decode import ImageError
from models.spec import InputSpec
from serving.batching.batcher import Batcher
from serving.batching.cost_model import BatchSizes
from serving.decoding.pool import Load
from serving.http.errors import RequestError, from_image_error, internal, unavailable
from serving.lifecycle.predictions import Prediction, best
from serving.lifecycle.shadow import Shadow
from serving.process.startup_errors import exit_after_gpu_loss
from serving.telemetry.recorder import Recorder

logger = logging.getLogger("bentoml.halftone")


class ServedModel:
    """One model of the service. Everything is first in, first out; nothing here blocks the event loop.

    Args:
        name: under which it is served.
        manifest: of the bundle.
        runtime: the loaded variant.
        record: its proof.
        sizes: decides the size of batches.
        threads: that decode and run.
        parallel: how many of them find a core at once; all where not given.
        streams: batches in flight at once, at most `threads`.
        capacity: pictures that may wait or be worked on at once.
        max_pixels: ceiling on a picture's width x height.
        load: from a picture's bytes to the model's pixels.
        recorder: is told what happens.
        bundle: that it was loaded from; the same name where none is given.
        reference: the FP32 variant to compare a share of the answers with; None: no comparison.
        shadow: that share, 0 to 1.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        runtime: Runtime,
        record: ParityRecord,
        *,
        sizes: BatchSizes,
        threads: int,
        parallel: int | None = None,
        streams: int,
        capacity: int,
        max_pixels: int,
        load: Load = preprocess.load,
        recorder: Recorder,
        bundle: str | None = None,
        reference: Runtime | None = None,
        shadow: float = 0.0,
    ) -> None:
        self.name = name
        self.bundle = bundle or name
        self.loaded_at = datetime.now(UTC)
        self.sizes = sizes
        self.streams = streams
        self.version = manifest.version
        self.variant = record.variant
        self.manifest = manifest
        self.record = record
        self.runtime = runtime
        self.capacity = capacity
        self._decode = partial(_decoded, load=load, spec=manifest.input, max_pixels=max_pixels)
        self._telemetry = recorder.model(name, self.version, self.variant)
        self._batcher = Batcher(
            self._run,
            sizes=sizes,
            threads=threads,
            parallel=parallel,
            streams=streams,
            capacity=capacity,
            observer=self._telemetry,
            name=f"{name}-worker",
        )
        self._recorder = recorder
        self._shadow: Shadow | None = None
        if reference is not None:
            self._shadow = Shadow(
                reference,
                share=shadow,
                idle=recorder.idle,
                temperature=manifest.temperature,
                recorder=recorder.comparison(name, self.variant),
            )

    def announce(self) -> None:
        """Requests reach it from now on: it is among the metrics."""
        self._recorder.serving(self.name, self.version, self.variant, self._batcher)
        if self._shadow:
            self._shadow.recorder.announce()

    def withdraw(self) -> None:
        """No new request reaches it from now on: it is no more among the metrics."""
        self._recorder.withdrawn(self.name, self.version, self.variant)
        if self._shadow:
            self._shadow.recorder.withdraw()
            self._shadow.drop()

    @property
    def waiting(self) -> int:
        """Pictures that nobody works on yet."""
        return self._batcher.waiting

    def check_room(self, seconds: float) -> None:
        """Whether a request for one picture would be taken now, with so many seconds for it.

        Raises:
            RequestError: 429 where it would not.
        """
        self._batcher.check_room(seconds)

    async def classify(
        self, images: Sequence[bytes], top_k: int, *, seconds: float
    ) -> list[list[Prediction] | RequestError]:
        """Decode and classify.

        Args:
            images: JPEG, PNG or WebP files.
            top_k: classes to name, 1 to the number of classes.
            seconds: time allowed for all of them.

        Returns:
            For each picture its most probable classes, best first, or why it can't be answered.

        Raises:
            RequestError: 429 where the queue has no room for all, 503 while stopping, 504 where the time is up.
        """
        finish = best(self.manifest, top_k)
        trace = self._telemetry.begin(len(images))
        results = await self._batcher.submit(images, seconds=seconds, prepare=self._decode, finish=finish, trace=trace)
        return [_per_item(result) for result in results]

    async def logits(self, pixels: Pixels, *, seconds: float) -> Logits:
        """Run the model on pixels that are decoded already.

        Args:
            pixels: uint8 RGB of shape (N, S, S, 3) with N >= 1.
            seconds: time allowed for all of them.

        Returns:
            float32 of shape (N, classes).

        Raises:
            RequestError: as `classify`; 500 where the model failed on one of them.
        """
        trace = self._telemetry.begin(len(pixels))
        rows = [_per_item(result) for result in await self._batcher.submit(pixels, seconds=seconds, trace=trace)]
        for row in rows:
            if isinstance(row, RequestError):
                raise row
        return np.stack(rows)

    async def logits_of(self, images: Sequence[bytes], *, seconds: float) -> list[Logits | RequestError]:
        """Decode and run the model.

        Args:
            images: JPEG, PNG or WebP files.
            seconds: time allowed for all of them.

        Returns:
            For each picture float32 of shape (classes,), or why it can't be answered.

        Raises:
            RequestError: as `classify`.
        """
        trace = self._telemetry.begin(len(images))
        results = await self._batcher.submit(images, seconds=seconds, prepare=self._decode, trace=trace)
        return [_per_item(result) for result in results]

    def drain(self, seconds: float = math.inf) -> bool:
        """Wait until nothing of it waits or runs, and say whether that came about in time; not on the event loop."""
        return self._batcher.drain(seconds)

    def close(self) -> None:
        """Take nothing new, finish what was accepted, end the threads and free the runtime; again does nothing."""
        self._batcher.close()
        if self._shadow:
            self._shadow.close()
        self.__dict__.pop("runtime", None)

    def _run(self, pixels: list[Pixels]) -> Logits:
        # One picture needs no copy into a batch.
        batch = pixels[0][np.newaxis] if len(pixels) == 1 else np.stack(pixels)
        try:
            logits = self.runtime.run(batch)
        except GpuLostError as error:
            exit_after_gpu_loss(self.name, error)
        if self._shadow:
            self._shadow.offer(pixels, logits)
        return logits


def _decoded(data: bytes, load: Load, spec: InputSpec, max_pixels: int) -> Pixels:
    """A picture's pixels; an error of it bears no traceback, which would keep the half-decoded picture as long."""
    try:
        return load(data, spec, max_pixels=max_pixels)
    except ImageError as error:
        error.__cause__ = error.__context__ = None
        raise error.with_traceback(None) from None


def _per_item(result: Any) -> Any:
    """A result as it is, an exception as what the client is told."""
    if not isinstance(result, Exception):
        return result
    if isinstance(result, ImageError):
        return from_image_error(result)
    if isinstance(result, MemoryError):
        return unavailable("out_of_memory", "there is no memory for this picture now: try again", retry_after=1)
    logger.error("failed on a picture", exc_info=result)
    return internal()
