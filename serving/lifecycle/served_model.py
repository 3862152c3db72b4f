"""A served model: a proven variant of a bundle behind its own queue."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from export.cuda.device import GpuLostError
from export.parity.gate import Gate
from export.parity.record import ParityRecord
from export.runtime import Logits, Pixels, Runtime
from models.bundle.bundle import Bundle
from models.bundle.drift import Profile
from models.bundle.manifest import Manifest
from models.bundle.promises import Promises
from models.preprocess import transform
from models.preprocess.collected import NAMED
from models.preprocess.errors import ImageError
from models.spec import InputSpec
from serving.batching.autotune import prepare
from serving.batching.batcher import Batcher, Many
from serving.batching.cost_model import AlwaysUpTo, BatchSizes, Costs
from serving.batching.items import Step
from serving.collect.collector import Collector, Source
from serving.decoding.pool import LoadPixels
from serving.http.errors import RequestError, from_image_error, internal, out_of_resources
from serving.lifecycle.predictions import Members, answers
from serving.lifecycle.shadow import Shadow
from serving.process.startup_errors import exit_broken
from serving.telemetry.recorder import Queue, Recorder

logger = logging.getLogger("bentoml.halftone")


class ServedModel:
    """One model of the service. Requests are first in, first out, and no coroutine blocks the event loop.

    Args:
        name: name under which the model is served.
        manifest: manifest of the bundle.
        runtime: the loaded variant.
        record: parity record of the variant.
        sizes: decides the size of batches once the model is complete.
        complete: False: the runtime is prepared for single images only, and `complete` is called later.
        threads: number of threads that decode and run.
        parallel: number of threads that have a core at once; default: all.
        streams: most batches in flight, at most `threads`.
        capacity: most images that wait or are in work.
        max_pixels: ceiling on an image's width x height.
        load_pixels: converts an image file to the model's pixels.
        recorder: receives metrics and traces.
        bundle: name of the bundle that the model was loaded from; default: `name`.
        reference: the FP32 variant to compare a share of the results with; None: no comparison.
        shadow: that share, 0 to 1.
        promises: what is said of every answer; None: nothing beside the probabilities.
        profile: of the pictures of the proof, to compare the images with; None: drift is not known.
        files: the opened bundle, for explanations; None: there are none.
        collector: receives the images with their answers; None: nothing is collected.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        runtime: Runtime,
        record: ParityRecord,
        *,
        sizes: BatchSizes,
        complete: bool = True,
        threads: int,
        parallel: int | None = None,
        streams: int,
        capacity: int,
        max_pixels: int,
        load_pixels: LoadPixels = transform.load,
        recorder: Recorder,
        bundle: str | None = None,
        reference: Runtime | None = None,
        shadow: float = 0.0,
        promises: Promises | None = None,
        profile: Profile | None = None,
        files: Bundle | None = None,
        collector: Collector | None = None,
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
        self.promises = promises
        self.files = files
        self.runtime = runtime
        self.capacity = capacity
        self.decode = partial(_decode, load_pixels=load_pixels, spec=manifest.input, max_pixels=max_pixels)
        self._telemetry = recorder.model(name, self.version, self.variant)
        self.totals = self._telemetry.totals
        self._batcher = Batcher(
            self._run,
            sizes=sizes if complete else AlwaysUpTo(1),
            threads=threads,
            parallel=parallel,
            streams=streams,
            capacity=capacity,
            observer=self._telemetry,
            name=f"{name}-worker",
        )
        self._sizes_used, self._completed = complete, False
        self._completing = threading.Lock()
        self._recorder = recorder
        self._collector = collector
        self._source = Source(name, self.version, self.variant)
        # On trial beside the active version, a request as a whole fails on a failure of the model, so that the active
        # one can answer it, and logits that are not finite are such a failure.
        self.on_trial = False
        self.copies: Callable[[Many, Sequence[Any]], object] | None = None
        self._drift = (
            recorder.drift(name, self.version, self.variant, profile, manifest.temperature) if profile else None
        )
        self._shadow: Shadow | None = None
        if reference is not None:
            self._shadow = Shadow(
                reference,
                share=shadow,
                idle=recorder.idle,
                temperature=manifest.temperature,
                recorder=recorder.comparison(
                    name, self.variant, min_agreement=Gate.for_precision(runtime.precision).min_agreement
                ),
                disagreed=_disagreed(collector, answers(manifest, NAMED, promises), self._source),
            )

    def complete(self) -> None:
        """Prepare the runtime for larger batches, and for an image alone, while it serves; again does nothing.

        Raises:
            Exception: that of the runtime; the model goes on as it is.
        """
        # Taken first: another thread may close the model meanwhile.
        runtime = self.__dict__.get("runtime")
        with self._completing:
            if runtime is None or self._completed:
                return
            self._completed = True
            if not self._sizes_used and isinstance(self.sizes, Costs):
                prepare(runtime, self.sizes.seconds)
                self._batcher.use_sizes(self.sizes)
            if runtime.prepare_alone():
                self._batcher.use_alone(partial(self._run, alone=True))
            # A read-only folder is no fault.
            with contextlib.suppress(OSError):
                runtime.keep_compiled()

    def announce(self) -> None:
        """Add the model to the metrics: requests reach it from now on."""
        self._recorder.serving(self.name, self.version, self.variant, self._batcher)
        if self._drift:
            self._drift.announce()
        if self._shadow:
            self._shadow.recorder.announce()

    def withdraw(self) -> None:
        """Remove the model from the metrics: no new request reaches it from now on."""
        self._recorder.withdrawn(self.name, self.version, self.variant)
        if self._drift:
            self._drift.withdraw()
        if self._shadow:
            self._shadow.recorder.withdraw()
            self._shadow.drop()

    @property
    def queue(self) -> Queue:
        """The images that wait or are in work."""
        return self._batcher

    def check_room(self, seconds: float) -> None:
        """Refuse a request for one image, with this time allowed, for which the queue has no room now.

        Raises:
            RequestError: 429.
        """
        self._batcher.check_room(seconds)

    async def classify(
        self, images: Sequence[bytes], top_k: int, *, seconds: float, coverage: float | None = None
    ) -> list[Members | RequestError]:
        """Decode and classify image files: one batcher item each, decoded, run and reduced to `top_k` in its threads.

        Args:
            images: JPEG, PNG or WebP files.
            top_k: classes to name, 1 to the number of classes.
            seconds: time allowed for all of them.
            coverage: of the prediction sets, which the promises allow; None for their own.

        Returns:
            For each image its most probable classes and what is promised of them, or the error of this image.

        Raises:
            RequestError: 429 if the queue has no room for all, 503 while stopping, 504 if the time is up.
        """
        finish = answers(self.manifest, top_k, self.promises, coverage)
        results = await self._submit(images, seconds, prepare=self.decode, finish=finish)
        if self._collector:
            self._collector.offer(images, results, self._source)
        return results

    async def logits_of_pixels(self, pixels: Pixels, *, seconds: float) -> Logits:
        """Run the model on decoded images.

        Args:
            pixels: uint8 RGB of shape (N, S, S, 3) with N >= 1.
            seconds: time allowed for all of them.

        Returns:
            float32 of shape (N, classes).

        Raises:
            RequestError: as `classify`; 500 if the model failed on one of them.
        """
        rows = await self._submit(pixels, seconds)
        for row in rows:
            if isinstance(row, RequestError):
                raise row
        return np.stack(rows)

    async def logits_of_files(self, images: Sequence[bytes], *, seconds: float) -> list[Logits | RequestError]:
        """Decode image files and run the model.

        Args:
            images: JPEG, PNG or WebP files.
            seconds: time allowed for all of them.

        Returns:
            For each image float32 of shape (classes,), or the error of this image.

        Raises:
            RequestError: as `classify`.
        """
        return await self._submit(images, seconds, prepare=self.decode)

    async def _submit(
        self, values: Many, seconds: float, *, prepare: Step | None = None, finish: Step | None = None
    ) -> list[Any]:
        """Return the result of each value or its RequestError, and record the request."""
        trace, start, success = self._telemetry.begin(len(values)), time.monotonic(), False
        try:
            results = await self._batcher.submit(values, seconds=seconds, prepare=prepare, finish=finish, trace=trace)
            if self.on_trial:
                _raise_failure(results)
            results = [result_or_request_error(result) for result in results]
            success = not all(isinstance(result, Exception) for result in results)
        finally:
            self._telemetry.ended(time.monotonic() - start, success=success)
        if success:
            self._recorder.model_answered(self.name, self.version, "candidate" if self.on_trial else "active")
        # Read once: another thread may end the trial meanwhile.
        if copies := self.copies:
            copies(values, results)
        return results

    def logits_at_once(self, pixels: Pixels) -> Logits:
        """Run the model on one decoded image in the calling thread, beside the queue.

        Args:
            pixels: uint8 RGB (S, S, 3).

        Returns:
            float32 (classes,).

        Raises:
            Exception: that of the runtime; FloatingPointError if the model is on trial and a logit is not finite.
        """
        logits: Logits = self._infer([pixels], alone=False)[0]
        return logits

    def close(self) -> None:
        """Refuse new requests, finish the accepted ones, end the threads and free the runtime; again does nothing."""
        self._batcher.close()
        if self._shadow:
            self._shadow.close()
        self.__dict__.pop("runtime", None)

    def _run(self, pixels: list[Pixels], *, alone: bool = False) -> Logits:
        logits = self._infer(pixels, alone=alone)
        if self._drift:
            self._drift.offer(pixels, logits)
        if self._shadow:
            self._shadow.offer(pixels, logits)
        return logits

    def _infer(self, pixels: list[Pixels], *, alone: bool) -> Logits:
        # A single image needs no copy into a batch.
        batch = pixels[0][np.newaxis] if len(pixels) == 1 else np.stack(pixels)
        try:
            logits = self.runtime.run(batch, alone=alone)
        except GpuLostError as error:
            exit_broken(self.name, error)
        if self.on_trial and not np.isfinite(logits).all():
            # The batcher then runs each image alone: only those with such logits fail.
            raise FloatingPointError("the model's output has NaN or infinity")
        return logits


def _disagreed(
    collector: Collector | None, finish: Callable[[Logits], Members], source: Source
) -> Callable[[Pixels, Logits], None]:
    """Return a function that collects an image; without the model, which would never be freed (see `Batcher.close`)."""

    def disagreed(pixels: Pixels, logits: Logits) -> None:
        if collector:
            collector.disagreed(pixels, finish(logits), source)

    return disagreed


def _decode(data: bytes, load_pixels: LoadPixels, spec: InputSpec, max_pixels: int) -> Pixels:
    """Return an image's pixels; raise its error without a traceback, which would keep the half-decoded image alive."""
    try:
        return load_pixels(data, spec, max_pixels=max_pixels)
    except ImageError as error:
        error.__cause__ = error.__context__ = None
        raise error.with_traceback(None) from None


def _raise_failure(results: Sequence[Any]) -> None:
    """Raise the first exception that is not about a client's own picture."""
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ImageError):
            raise result


def result_or_request_error(result: Any) -> Any:
    """Return a result as it is, and an exception as the error for the client."""
    if isinstance(result, RequestError) or not isinstance(result, Exception):
        return result
    if isinstance(result, ImageError):
        return from_image_error(result)
    if isinstance(result, MemoryError | OSError | ImportError):
        logger.warning("a picture was refused for want of memory or files: %r", result)
        return out_of_resources(result)
    logger.error("failed on a picture", exc_info=result)
    return internal()
