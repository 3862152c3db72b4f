"""Score the chunks of a job with Ray: on this machine alone, or on the nodes of an existing cluster.

On this machine Ray runs as long as the job and listens on 127.0.0.1 only; its dashboard and its usage reports are off.
A process of its own drives it, because Ray ends the process that drives it, without an exception, when one of its
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
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import serving
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from models.common.host import cores
from serving.batch.job import Job
from serving.batch.nodes import Prepared, default_workers, packed, prepare
from serving.batch.schedule import Plan, RefusedNode, Schedule, ScoredChunk, failed, on_node
from serving.settings import Settings

_OBJECT_STORE_BYTES = 100 * 2**20

_ATTEMPTS = 3
"""Workers that a chunk may lose on a cluster, whose nodes also run other programs."""

_REACH_SECONDS = 5.0

_END_SECONDS = 15
"""Time for Ray to end; then it is killed."""


def score_chunks(
    settings: Settings, output: str, job: Job, chunks: Sequence[int], workers: int, ray_address: str = ""
) -> Iterator[ScoredChunk | RefusedNode]:
    """Write the parts of these chunks; yield each as soon as it is written, and each node that can't score.

    Args:
        settings: settings of the run; `threads` are those of all workers of a node together.
        output: path or URI of the output of the job.
        job: the job to work on.
        chunks: numbers of the chunks.
        workers: number of processes on each node; 0: by its cores.
        ray_address: of an existing cluster; empty: Ray on this machine alone, as long as the run takes.

    Raises:
        HalftoneError: Ray can't be started or reached, a worker ended, or no node can score.
    """
    # In /tmp, because the paths of Ray's sockets have to be short and TMPDIR may be long.
    with tempfile.TemporaryDirectory(prefix="ht-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        run = _Run(settings, output, job, chunks, workers, ray_address)
        driver = spawn.Process(target=_drive, args=(theirs, folder, run), daemon=True)
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


@dataclass(frozen=True)
class _Run:
    """The arguments of `score_chunks`."""

    settings: Settings
    output: str
    job: Job
    chunks: Sequence[int]
    workers: int
    ray_address: str


def _reported(driver: Connection) -> Iterator[ScoredChunk | RefusedNode]:
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


def _drive(parent: Connection, folder: str, run: _Run) -> None:
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
        plan = _on_cluster if run.ray_address else _on_this_machine
        with plan(run, folder) as schedule:
            for report in schedule.run():
                parent.send(report)
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


@contextlib.contextmanager
def _on_this_machine(run: _Run, folder: str) -> Iterator[Schedule]:
    """Start Ray for the run, with files in the folder; it ends with the block."""
    os.environ.update(_environment())
    workers = min(run.workers or default_workers(cores()), len(run.chunks))
    of_a_worker = replace(run.settings, threads=max(1, run.settings.worker_threads // workers))
    node = Prepared(settings=of_a_worker, workers=workers)
    try:
        with _connected(
            "Ray can't be started on this machine",
            address="local",
            num_cpus=workers * of_a_worker.threads,
            num_gpus=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
        ) as ray:
            prepared = ray.put(node)
            # An image that ends its worker would end every other one.
            yield Schedule(ray, _plan(run, lambda node, cpus: prepared, attempts=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_reachable(ray_address: str) -> None:
    """Raise HalftoneError if nothing listens at the address of a cluster: Ray would try for minutes."""
    if ray_address == "auto":
        return
    host, _, port = ray_address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise HalftoneError(
            f"--ray-address {ray_address}: no cluster answers there ({error}): `ray start --head` starts one, and "
            "prints its address"
        ) from None


@contextlib.contextmanager
def _on_cluster(run: _Run, _: str) -> Iterator[Schedule]:
    """Connect to a cluster, and send the bundle to each node that is asked to score."""
    files = packed(open_bundle(run.job.model))
    failure = f"--ray-address {run.ray_address} can't be used; `ray start --head` starts a cluster"
    with _connected(failure, address=run.ray_address) as ray:
        bundle = ray.put(files)

        def prepare_node(node: str, cpus: int) -> Any:
            task = ray.remote(prepare).options(num_cpus=0, max_retries=0, **on_node(node))
            return task.remote(bundle, run.settings, run.output, run.job, cpus, run.workers)

        yield Schedule(ray, _plan(run, prepare_node, attempts=_ATTEMPTS))


def _plan(run: _Run, start: Callable[[str, int], Any], *, attempts: int) -> Plan:
    return Plan(
        output=run.output,
        job=run.job,
        chunks=run.chunks,
        prepare=start,
        attempts=attempts,
        alone=not run.ray_address,
    )


@contextlib.contextmanager
def _connected(failure: str, **options: Any) -> Iterator[Any]:
    """Yield the module `ray`, connected until the block ends.

    Args:
        failure: says what happened if it can't be connected.
        options: of `ray.init`.

    Raises:
        HalftoneError: Ray can't be started or reached, or lost its own processes.
    """
    # After the environment is set: Ray reads it on import.
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        # Many kinds, because Ray starts many programs.
        except Exception as error:
            raise HalftoneError(f"{failure}: {' '.join(str(error).split())}") from None
        try:
            yield ray
        except ray.exceptions.RayError as error:
            raise failed(error) from None
    finally:
        ray.shutdown()


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
