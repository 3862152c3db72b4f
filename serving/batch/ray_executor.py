"""Distribute the chunks of a job over worker processes with Ray Data.

Ray passes on only the numbers of the chunks: a worker reads its images and writes its part, so that no image is copied
between processes. Ray runs on this machine only and listens on 127.0.0.1 only; its dashboard and its usage reports are
off.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

import serving
from models.common.errors import HalftoneError
from models.common.files import atomic_path
from serving.batch.inputs import Pictures
from serving.batch.job import Job, PartsFolder
from serving.batch.scorer import Scorer
from serving.settings import Settings

_OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True)
class ScoredChunk:
    """A chunk whose part is written."""

    chunk: int
    """Number of the chunk."""

    rows: int
    """Number of images in the chunk."""

    started: float
    """Start, in monotonic seconds of this machine."""

    ended: float
    """End, in monotonic seconds of this machine."""


class Worker:
    """A worker process, which loads the model for itself.

    Args:
        settings: settings with the model, variant and number of threads.
        output: output of the job.
        job: the job to work on.
    """

    def __init__(self, settings: Settings, output: Path, job: Job) -> None:
        self._parts = PartsFolder(output)
        self._scorer = Scorer(settings, Pictures(job.input), job.top_k)

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Score the chunks with these numbers, each into its part."""
        scored = [self._score(int(chunk)) for chunk in batch["item"]]
        names = ("chunk", "rows", "started", "ended")
        return {name: np.array([getattr(each, name) for each in scored]) for name in names}

    def _score(self, chunk: int) -> ScoredChunk:
        start = time.monotonic()
        table = self._scorer.score(self._parts.names(chunk))
        with atomic_path(self._parts.part(chunk)) as path:
            pq.write_table(table, path)
        return ScoredChunk(chunk, table.num_rows, start, time.monotonic())


def score_chunks(
    settings: Settings, output: Path, job: Job, chunks: Sequence[int], workers: int
) -> Iterator[ScoredChunk]:
    """Write the parts of these chunks; yield each as soon as Ray reports it.

    Args:
        settings: settings of each worker.
        output: output of the job.
        job: the job to work on.
        chunks: numbers of the chunks.
        workers: number of processes.

    Raises:
        HalftoneError: Ray can't be started, or a worker ended.
    """
    with _cluster(workers) as ray:
        try:
            for row in _data_set(ray, Worker, (settings, output, job), chunks, workers).iter_rows():
                yield ScoredChunk(**row)
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise HalftoneError(
                f"the workers failed ({cause}): the finished parts are kept, run the same command again to resume"
            ) from None


def _data_set(ray: Any, worker: type, arguments: tuple[Any, ...], chunks: Sequence[int], workers: int) -> Any:
    """Return the data set of the workers' results for the chunks."""
    numbers = ray.data.from_items(list(chunks), override_num_blocks=min(len(chunks), 64 * workers))
    with warnings.catch_warnings():
        # Ray deprecates the last two options in favour of others that it doesn't have yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return numbers.map_batches(
            worker,
            fn_constructor_args=arguments,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            # Otherwise Ray restarts a worker without end that an image makes end.
            max_restarts=0,
            max_task_retries=0,
        )


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Yield the module `ray`, connected to its own processes, which end with the block."""
    os.environ.update(_environment())
    # After the environment is set: Ray reads it on import.
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # In /tmp, because the paths of Ray's sockets have to be short and TMPDIR may be long.
    with tempfile.TemporaryDirectory(prefix="ht-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            _start(ray, workers, folder)
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, workers: int, folder: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
    # Many kinds, because Ray starts many programs.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise HalftoneError(f"Ray can't be started on this machine: {reason}") from None


def _environment() -> dict[str, str]:
    ours = str(Path(serving.__path__[0]).parent)
    others = os.environ.get("PYTHONPATH")
    return {
        # Workers import this project even if it isn't installed.
        "PYTHONPATH": os.pathsep.join([ours, others] if others else [ours]),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Despite its name it applies to Linux too: with 0 everything binds to 127.0.0.1 instead of every interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Processes of other users can reach 127.0.0.1 as well; a token of this run keeps them out.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
    }


@cache
def _token() -> str:
    """Return a random token, the same for the whole process because Ray reads it once."""
    return secrets.token_hex(32)
