"""Distribute the chunks of a job over worker processes with Ray Data.

Ray passes on only the numbers of the chunks: a worker reads its images and writes its part, so that no image is copied
between processes. Ray runs on this machine only and listens on 127.0.0.1 only; its dashboard and its usage reports are
off. A process of its own drives it, because Ray ends the process that drives it, without an exception, when one of its
agents is lost.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

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

_END_SECONDS = 15
"""Time for Ray to end; then it is killed."""


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
    # In /tmp, because the paths of Ray's sockets have to be short and TMPDIR may be long.
    with tempfile.TemporaryDirectory(prefix="ht-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        driver = spawn.Process(
            target=_drive, args=(theirs, folder, settings, output, job, chunks, workers), daemon=True
        )
        driver.start()
        theirs.close()
        try:
            yield from _reported(ours)
        finally:
            # It ends Ray first.
            driver.terminate()
            driver.join(_END_SECONDS)
            driver.kill()
            driver.join()
            ours.close()


def _reported(driver: Connection) -> Iterator[ScoredChunk]:
    """Yield what the driver reports until it says that all is done."""
    while True:
        try:
            report = driver.recv()
        except (EOFError, ConnectionError):
            raise HalftoneError(
                "Ray ended before all pictures were scored, because one of its processes was killed or the memory was "
                "full: the finished parts are kept, run the same command again to resume"
            ) from None
        if report is None:
            return
        if isinstance(report, Exception):
            raise report
        yield report


def _drive(
    parent: Connection, folder: str, settings: Settings, output: Path, job: Job, chunks: Sequence[int], workers: int
) -> None:
    """Run Ray and report each chunk, then an error or None; the main function of the driver process."""
    # A terminal sends SIGINT to all processes; the parent handles it, and ends this one with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit)
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    # What Ray has to say about processes that were killed would hide the error.
    with Path(os.devnull).open("w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    try:
        with _cluster(workers, folder) as ray:
            try:
                for row in _data_set(ray, Worker, (settings, output, job), chunks, workers).iter_rows():
                    parent.send(ScoredChunk(**row))
            except ray.exceptions.RayError as error:
                cause = str(error).strip().splitlines()[-1]
                raise HalftoneError(
                    f"the workers failed ({cause}): the finished parts are kept, run the same command again to resume"
                ) from None
        parent.send(None)
    except HalftoneError as error:
        parent.send(error)
    except Exception:
        # Not every error of a library can be sent.
        parent.send(RuntimeError(traceback.format_exc()))


def _exit(number: int, _: object) -> NoReturn:
    sys.exit(number)


def _end_with(parent: Connection, folder: str) -> None:
    """Wait until the parent has ended, which sends nothing, then end this process and Ray."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


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
def _cluster(workers: int, folder: str) -> Iterator[Any]:
    """Yield the module `ray`, connected to its own processes, which end with the block and have files in the folder."""
    os.environ.update(_environment())
    # After the environment is set: Ray reads it on import.
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        _start(ray, workers, folder)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


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
