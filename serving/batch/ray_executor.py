"""The chunks of a job spread over worker processes by Ray Data.

Only numbers of chunks travel: a worker reads its own pictures and writes its own part, so that no picture is ever
copied between processes. Ray runs on this machine alone and listens on 127.0.0.1 alone; its dashboard and its usage
reports are off.
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
from serving.batch.job import Job, Workplace
from serving.batch.scorer import Scorer
from serving.settings import Settings

_OBJECT_STORE_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Done:
    """A chunk whose part is written."""

    chunk: int
    """Its number."""

    rows: int
    """Pictures in it."""

    begun: float
    """Monotonic seconds of this machine."""

    ended: float
    """Likewise."""


class Worker:
    """One process with a model of its own.

    Args:
        settings: with the model, variant and number of threads.
        output: of the job.
        job: to be worked on.
    """

    def __init__(self, settings: Settings, output: Path, job: Job) -> None:
        self._place = Workplace(output)
        self._scorer = Scorer(settings, Pictures(job.input), job.top_k)

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Score the chunks with these numbers, each into its part."""
        done = [self._chunk(int(chunk)) for chunk in batch["item"]]
        names = ("chunk", "rows", "begun", "ended")
        return {name: np.array([getattr(each, name) for each in done]) for name in names}

    def _chunk(self, chunk: int) -> Done:
        begun = time.monotonic()
        table = self._scorer.score(self._place.names(chunk))
        with atomic_path(self._place.part(chunk)) as path:
            pq.write_table(table, path)
        return Done(chunk, table.num_rows, begun, time.monotonic())


def score_chunks(settings: Settings, output: Path, job: Job, chunks: Sequence[int], workers: int) -> Iterator[Done]:
    """Write the parts of these chunks; yields each as soon as it is known to be done.

    Args:
        settings: of each worker.
        output: of the job.
        job: to be worked on.
        chunks: their numbers.
        workers: processes.

    Raises:
        HalftoneError: Ray can't be started, or a worker ended.
    """
    with _cluster(workers) as ray:
        try:
            for row in _spread(ray, Worker, (settings, output, job), chunks, workers).iter_rows():
                yield Done(**row)
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise HalftoneError(
                f"the workers failed ({cause}): what is done is kept, run the same command again to go on"
            ) from None


def _spread(ray: Any, worker: type, arguments: tuple[Any, ...], chunks: Sequence[int], workers: int) -> Any:
    """The data set of what the workers return for the chunks."""
    numbers = ray.data.from_items(list(chunks), override_num_blocks=min(len(chunks), 64 * workers))
    with warnings.catch_warnings():
        # Ray would have the two last options given in another way, which it doesn't have yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return numbers.map_batches(
            worker,
            fn_constructor_args=arguments,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            # Else a worker that ends is started again for ever, whatever picture it ends on.
            max_restarts=0,
            max_task_retries=0,
        )


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """The module `ray`, connected to processes of its own that end with the block."""
    os.environ.update(_environment())
    # Ray reads the environment while it is imported.
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # The names of Ray's sockets have to be short, and TMPDIR need not be.
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
    # Many kinds, as many programs have to start.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise HalftoneError(f"Ray can't be started on this machine: {reason}") from None


def _environment() -> dict[str, str]:
    ours = str(Path(serving.__path__[0]).parent)
    others = os.environ.get("PYTHONPATH")
    return {
        # Workers import this project also where it isn't installed.
        "PYTHONPATH": os.pathsep.join([ours, others] if others else [ours]),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Despite its name it holds for Linux too: with 0 everything binds to 127.0.0.1 instead of every interface.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Processes of other users can reach 127.0.0.1 as well; a token of this run's own keeps them out.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _token(),
    }


@cache
def _token() -> str:
    """One for the whole process: Ray reads it once."""
    return secrets.token_hex(32)
