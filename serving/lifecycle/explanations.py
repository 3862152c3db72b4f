"""Heat maps of `/explain`: a queue of its own and one thread of low priority, away from the models' threads.

The explanation of a model is loaded when a request first needs it, and freed when none came for `IDLE_SECONDS` or when
another model is explained. So at most one is in memory, beside the served models.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from export.explain.classes import class_index
from export.explain.heat import VARIANT, Heat, HeatMaps, Method
from export.runtime import Pixels
from models.common.errors import HalftoneError
from models.common.memory import trim
from models.preprocess.errors import ImageError
from models.preprocess.transform import Fractions, load_with_box
from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo
from serving.http.errors import RequestError, bad_parameter
from serving.lifecycle.served_model import ServedModel, result_or_request_error
from serving.process.priority import lower_priority

logger = logging.getLogger("bentoml.halftone")

IDLE_SECONDS = 300.0
CAPACITY = 16
"""Images that may wait or be processed at once; a further one gets 429."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A heat map with its image."""

    heat: Heat
    method: Method
    variant: str
    pixels: Pixels
    """uint8 RGB (S, S, 3), as the model sees the image."""

    box: Fractions
    """The part of the upright image that the model sees."""


class _Task(NamedTuple):
    model: ServedModel
    image: bytes
    label: str | None


class Explanations:
    """The queue, its thread, and the explanation that is loaded.

    Args:
        max_pixels: ceiling on an image's width x height.
        idle_seconds: time without a request after which memory is freed.
    """

    def __init__(self, *, max_pixels: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._max_pixels = max_pixels
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._batcher: Batcher | None = None
        self._loaded: tuple[ServedModel, HeatMaps] | None = None
        self._timer: threading.Timer | None = None
        self._lowered = False

    def check_room(self, seconds: float) -> None:
        """Refuse a request with this time allowed for which the queue has no room now.

        Raises:
            RequestError: 429.
        """
        if self._batcher is not None:
            self._batcher.check_room(seconds)

    async def explain(self, model: ServedModel, image: bytes, label: str | None, *, seconds: float) -> Explained:
        """Decode an image and compute the heat map of a class.

        Args:
            model: the served model.
            image: a JPEG, PNG or WebP file.
            label: label, label id or index of the class; None for the best one.
            seconds: time allowed.

        Raises:
            RequestError: the image's or the parameter's error; 404 if the model has no explanation; 429 if the queue is
                full, 503 while stopping, 504 if the time is up.
        """
        (result,) = await self._queue().submit([_Task(model, image, label)], seconds=seconds)
        result = result_or_request_error(result)
        if isinstance(result, RequestError):
            raise result
        explained: Explained = result
        return explained

    def close(self) -> None:
        """Refuse new requests, finish the accepted ones, and free the memory."""
        if self._batcher is not None:
            self._batcher.close()
        self.free()

    def free(self) -> None:
        """Free the loaded explanation; the next request loads it again."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if loaded is not None:
            del loaded
            trim()

    def _queue(self) -> Batcher:
        # Not before the first request: a supervisor, and a service that is never asked, have no such thread.
        if self._batcher is None:
            self._batcher = Batcher(
                self._run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=CAPACITY, name="explain"
            )
        return self._batcher

    def _run(self, tasks: Sequence[_Task]) -> list[Any]:
        """Return the result or the exception of each task: a raised one would be tried again."""
        if not self._lowered:
            lower_priority()
            self._lowered = True
        return [self._attempt(task) for task in tasks]

    def _attempt(self, task: _Task) -> Explained | Exception:
        try:
            return self._explained(task)
        except ImageError as error:
            # Without a traceback, which would keep the half-decoded image alive.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception as error:
            return error

    def _explained(self, task: _Task) -> Explained:
        manifest = task.model.manifest
        index = None
        if task.label is not None:
            try:
                index = class_index(manifest, task.label)
            except HalftoneError as error:
                raise bad_parameter(f"class: {error}") from None
        pixels, box = load_with_box(task.image, manifest.input, max_pixels=self._max_pixels)
        maps = self._maps(task.model)
        heat = maps.explain(pixels, index)
        return Explained(heat=heat, method=maps.method, variant=VARIANT, pixels=pixels, box=box)

    def _maps(self, model: ServedModel) -> HeatMaps:
        with self._lock:
            loaded = self._loaded
        if loaded is None or loaded[0] is not model:
            # Freed before the next is loaded.
            self.free()
            loaded = None
            loaded = model, _load(model)
        with self._lock:
            self._loaded = loaded
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self._idle_seconds, self.free)
            self._timer.daemon = True
            self._timer.start()
        return loaded[1]


def _load(model: ServedModel) -> HeatMaps:
    try:
        if model.files is None:
            raise HalftoneError("it has no bundle")
        return HeatMaps(model.files)
    except HalftoneError as error:
        logger.warning("%s can't be explained: %s", model.name, error)
        # Without the reason: it has paths of the server.
        raise RequestError(
            404,
            "no_explanation",
            f"the model {model.name} has no proven FP32 graph to explain with, or its files have changed: see the "
            "server's log; `python -m export` makes what is missing",
        ) from None
