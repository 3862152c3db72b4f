"""Pictures to rows: read ahead, decode, run, write down; what a worker does, with no cluster in sight.

Pictures go through the same `models.preprocess`, variant, batch sizes and limits as in the service, so that a row says
what /classify would answer.
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
from models.preprocess.decode import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import load
from serving.batch.inputs import Pictures
from serving.batch.job import SCHEMA
from serving.batching.autotune import batch_sizes
from serving.http.errors import RequestError, from_image_error
from serving.lifecycle.loading import open_fastest
from serving.lifecycle.predictions import best
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

Value = TypeVar("Value")
Result = TypeVar("Result")
Row = dict[str, Any]

_READERS = 4


class Scorer:
    """An opened model that scores pictures.

    Args:
        settings: of the service, with the model, its variant and the threads to use.
        pictures: where they are read from.
        top_k: classes in each row.

    Raises:
        HalftoneError: as `open_fastest`.
    """

    def __init__(self, settings: Settings, pictures: Pictures, top_k: int) -> None:
        opened = open_fastest(settings.model, settings)
        manifest = opened.bundle.manifest
        self._runtime = opened.runtime
        self._size = batch_sizes(settings.model, opened.runtime, settings)[1].best(settings.queue)
        self._settings = settings
        self._pictures = pictures
        self._spec = manifest.input
        self._predict = best(manifest, top_k)
        self._made_by = {"model": settings.model, "version": manifest.version, "variant": opened.record.variant}
        self._threads = settings.worker_threads
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="score")

    def score(self, names: Sequence[str]) -> pa.Table:
        """A row for each picture, in their order; what goes wrong with one is said in its row."""
        window = self._size * (self._threads + 1) + _READERS
        read = _ahead(self._readers, self._read, names, window)
        groups = iter(lambda: list(islice(read, self._size)), [])
        rows = [row for group in _ahead(self._workers, self._rows, groups, self._threads) for row in group]
        return pa.Table.from_pylist([self._made_by | row for row in rows], schema=SCHEMA)

    def _read(self, name: str) -> tuple[str, bytes | RequestError]:
        limit = self._settings.max_body
        try:
            data = self._pictures.read(name, limit + 1)
        except OSError as error:
            return name, _unanswered("unreadable", f"the file can't be read: {' '.join(str(error).split())}")
        if len(data) > limit:
            message = f"the file is larger than {limit} bytes: send it smaller, or raise HALFTONE_MAX_BODY_MB"
            return name, _unanswered("too_large", message)
        return name, data

    def _rows(self, group: list[tuple[str, bytes | RequestError]]) -> list[Row]:
        names = [name for name, _ in group]
        pixels = [_attempt(self._decode, data) for _, data in group]
        good = [each for each in pixels if not isinstance(each, RequestError)]
        logits = iter(self._run(good))
        return [
            _row(name, each if isinstance(each, RequestError) else next(logits))
            for name, each in zip(names, pixels, strict=True)
        ]

    def _decode(self, data: bytes | RequestError) -> Pixels:
        if isinstance(data, RequestError):
            raise data
        return load(data, self._spec, max_pixels=self._settings.max_pixels)

    def _run(self, pixels: list[Pixels]) -> list[Any]:
        """The predictions of each, or why there are none; where a batch fails, each is tried by itself."""
        if not pixels:
            return []
        logits = _attempt(self._runtime.run, np.stack(pixels))
        if not isinstance(logits, RequestError):
            return [_attempt(self._predict, each) for each in logits]
        return [logits] if len(pixels) == 1 else [self._run([each])[0] for each in pixels]


def _attempt(function: Callable[[Any], Result], value: Any) -> Result | RequestError:
    """The result, or what to write into the row."""
    try:
        return function(value)
    except RequestError as error:
        return error
    except ImageError as error:
        return from_image_error(error)
    except GpuLostError:
        # It would raise it on every other picture as well.
        raise
    except MemoryError:
        return _unanswered("out_of_memory", "there was no memory for this picture: use fewer workers")
    # Whatever a library raises on one picture must not end a run of millions.
    except Exception as error:
        logger.warning("failed on a picture", exc_info=error)
        return _unanswered("internal_error", f"{type(error).__name__}: {error}")


def _unanswered(code: str, message: str) -> RequestError:
    return RequestError(500, code, message)


def _row(name: str, outcome: Any) -> Row:
    if isinstance(outcome, RequestError):
        return {"path": name, "error_code": outcome.code, "error": outcome.message}
    return {
        "path": name,
        "labels": [each["label"] for each in outcome],
        "indices": [each["index"] for each in outcome],
        "probabilities": [each["probability"] for each in outcome],
    }


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Value], Result], values: Iterable[Value], window: int
) -> Iterator[Result]:
    """The function of each value in order, with up to `window` of them begun ahead of the one that is asked for."""
    begun: deque[Future[Result]] = deque()
    for value in values:
        begun.append(pool.submit(function, value))
        if len(begun) > window:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
