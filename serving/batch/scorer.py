"""Score images in one process: read ahead, decode, run, and make a row of each image.

Images pass the same `models.preprocess`, variant, batch sizes and limits as in the service, so that a row holds the
response of /classify.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from export.cuda.device import GpuLostError
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import load
from serving.batch.inputs import Pictures
from serving.batch.job import SCHEMA
from serving.batching.autotune import batch_sizes
from serving.http.errors import RequestError, from_image_error
from serving.lifecycle.loading import load_fastest
from serving.lifecycle.predictions import top_predictions
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

Value = TypeVar("Value")
Result = TypeVar("Result")
Row = dict[str, Any]

_READERS = 4


class Scorer:
    """A loaded model with threads that read and score images.

    Args:
        settings: the service's settings, with the model, its variant and the number of threads.
        pictures: the images' folder.
        top_k: classes in each row.

    Raises:
        HalftoneError: as `load_fastest`.
    """

    def __init__(self, settings: Settings, pictures: Pictures, top_k: int) -> None:
        loaded = load_fastest(settings.model, settings)
        manifest = loaded.bundle.manifest
        self._runtime = loaded.runtime
        self._size = batch_sizes(settings.model, loaded.runtime, settings)[1].best(settings.queue)
        self._settings = settings
        self._pictures = pictures
        self._spec = manifest.input
        self._predict = top_predictions(manifest, top_k)
        self._model = {"model": settings.model, "version": manifest.version, "variant": loaded.record.variant}
        self._threads = settings.worker_threads
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="score")

    def score(self, names: Sequence[str]) -> pa.Table:
        """Return a row for each image, in their order; the row of a bad image holds its error."""
        window = self._size * (self._threads + 1) + _READERS
        read = _map_ahead(self._readers, self._read, names, window)
        batches = iter(lambda: list(islice(read, self._size)), [])
        rows = [row for batch in _map_ahead(self._workers, self._rows, batches, self._threads) for row in batch]
        return pa.Table.from_pylist([self._model | row for row in rows], schema=SCHEMA)

    def _read(self, name: str) -> tuple[str, bytes | RequestError]:
        limit = self._settings.max_body
        try:
            data = self._pictures.read(name, limit + 1)
        except OSError as error:
            return name, _error("unreadable", f"the file can't be read: {' '.join(str(error).split())}")
        if len(data) > limit:
            message = f"the file is larger than {limit} bytes: send it smaller, or raise HALFTONE_MAX_BODY_MB"
            return name, _error("too_large", message)
        return name, data

    def _rows(self, batch: list[tuple[str, bytes | RequestError]]) -> list[Row]:
        names = [name for name, _ in batch]
        pixels = [_attempt(self._decode, data) for _, data in batch]
        good = [each for each in pixels if not isinstance(each, RequestError)]
        results = iter(self._run(good))
        return [
            _row(name, each if isinstance(each, RequestError) else next(results))
            for name, each in zip(names, pixels, strict=True)
        ]

    def _decode(self, data: bytes | RequestError) -> Pixels:
        if isinstance(data, RequestError):
            raise data
        return load(data, self._spec, max_pixels=self._settings.max_pixels)

    def _run(self, pixels: list[Pixels]) -> list[Any]:
        """Return the predictions of each image, or its error; if a batch fails, run each image alone."""
        if not pixels:
            return []
        logits = _attempt(self._runtime.run, np.stack(pixels))
        if not isinstance(logits, RequestError):
            return [_attempt(self._predict, each) for each in logits]
        return [logits] if len(pixels) == 1 else [self._run([each])[0] for each in pixels]


def _attempt(function: Callable[[Any], Result], value: Any) -> Result | RequestError:
    """Return the function's result, or the error for the row."""
    try:
        return function(value)
    except RequestError as error:
        return error
    except ImageError as error:
        return from_image_error(error)
    except GpuLostError:
        # Every other image would fail as well.
        raise
    except MemoryError:
        return _error("out_of_memory", "there was no memory for this picture: use fewer workers")
    # Whatever a library raises on one image must not end a run of millions.
    except Exception as error:
        logger.warning("failed on a picture", exc_info=error)
        return _error("internal_error", f"{type(error).__name__}: {error}")


def _error(code: str, message: str) -> RequestError:
    # Only the code and the message go into the row.
    return RequestError(500, code, message)


def _row(name: str, result: Any) -> Row:
    if isinstance(result, RequestError):
        return {"path": name, "error_code": result.code, "error": result.message}
    return {
        "path": name,
        "labels": [each["label"] for each in result],
        "indices": [each["index"] for each in result],
        "probabilities": [each["probability"] for each in result],
    }


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Value], Result], values: Iterable[Value], window: int
) -> Iterator[Result]:
    """Yield the function of each value in order; the pool works on up to `window` values ahead."""
    submitted: deque[Future[Result]] = deque()
    for value in values:
        submitted.append(pool.submit(function, value))
        if len(submitted) > window:
            yield submitted.popleft().result()
    while submitted:
        yield submitted.popleft().result()
