"""A model that answers: a proven variant of a bundle behind a queue of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from export.record import ParityRecord
from export.runtimes.base import Logits, Pixels, Runtime
from models.manifest import Manifest
from models.preprocess import ImageError, load
from serving.batching import Batcher
from serving.costs import BatchSizes
from serving.errors import RequestError, from_image_error, internal, unavailable
from serving.predictions import Prediction, best
from serving.telemetry.recorder import Recorder

logger = logging.getLogger("bentoml.halftone")


class Served:
    """One model of the service. Everything is first in, first out; nothing here blocks the event loop.

    Args:
        name: under which it is served.
        manifest: of the bundle.
        runtime: the loaded variant.
        record: its proof.
        sizes: decides the size of batches.
        threads: that decode and run.
        streams: batches in flight at once, at most `threads`.
        capacity: pictures that may wait or be worked on at once.
        max_pixels: ceiling on a picture's width x height.
        recorder: is told what happens.
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
        streams: int,
        capacity: int,
        max_pixels: int,
        recorder: Recorder,
    ) -> None:
        self.name = name
        self.version = manifest.version
        self.variant = record.variant
        self.manifest = manifest
        self.record = record
        self.runtime = runtime
        self.capacity = capacity
        self._decode = partial(load, spec=manifest.input, max_pixels=max_pixels)
        self._telemetry = recorder.model(name, self.version, self.variant)
        self._batcher = Batcher(
            self._run,
            sizes=sizes,
            threads=threads,
            streams=streams,
            capacity=capacity,
            observer=self._telemetry,
            name=f"{name}-worker",
        )
        recorder.queue(name, self.variant, lambda: self.waiting)

    @property
    def waiting(self) -> int:
        """Pictures that nobody works on yet."""
        return self._batcher.waiting

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

    def close(self) -> None:
        """Finish what was accepted and take nothing new."""
        self._batcher.close()

    def _run(self, pixels: list[Pixels]) -> Logits:
        # One picture needs no copy into a batch.
        return self.runtime.run(pixels[0][np.newaxis] if len(pixels) == 1 else np.stack(pixels))


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
