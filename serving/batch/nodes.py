"""What runs on the nodes of a Ray cluster: choose the variant there, and score chunks in workers.

Ray passes on the bundle, once to each node, and the numbers of the chunks. A worker reads its images and writes its
part by itself, so that no image is copied between processes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from models.bundle.bundle import Bundle
from models.bundle.manifest import FILE_NAME
from models.common.errors import HalftoneError
from models.common.files import open_plain
from serving.batch.inputs import Pictures
from serving.batch.job import Job, PartsFolder
from serving.batch.scorer import Scorer
from serving.batching.autotune import batch_sizes
from serving.lifecycle.loading import load_fastest
from serving.lifecycle.measurements import FILE_NAME as MEASURED
from serving.settings import Settings

ARTIFACTS = "HALFTONE_ARTIFACTS"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A node that can score."""

    settings: Settings
    """Those of each of its workers: variant, batch and threads."""

    workers: int
    """Number of workers."""

    artifacts: str = ""
    """Folder of the bundle that it got; empty: the folder of bundles of this machine."""


def packed(bundle: Bundle) -> dict[str, bytes]:
    """Return the content of every file of a bundle by name, with what was measured with it.

    Raises:
        BundleError: a file is missing or damaged.
    """
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    for name in (FILE_NAME, MEASURED):
        if (path := bundle.folder / name).exists():
            with open_plain(path) as file:
                files[name] = file.read()
    return files


def prepare(files: Mapping[str, bytes], settings: Settings, output: str, job: Job, cpus: int, workers: int) -> Prepared:
    """Unpack the bundle, check its hashes, choose the variant and measure its batches; runs once on each node.

    Args:
        files: of the bundle.
        settings: of the run.
        output: path or URI of the job's output.
        job: the job.
        cpus: of the node.
        workers: processes on the node; 0: by the cores, as on one machine.

    Raises:
        HalftoneError: the node can't score; the message says why.
    """
    if PartsFolder(output).unfinished_job() != job:
        raise HalftoneError(
            f"it doesn't see {output}.parts as it was written: --output must be in a folder that all nodes share, or "
            "in a bucket"
        )
    Pictures(job.input)
    workers = workers or default_workers(cpus)
    share = replace(settings, threads=max(1, (settings.threads or cpus) // workers))
    folder = Path(tempfile.mkdtemp(prefix="halftone-batch-"))
    try:
        _unpack(files, folder / job.model)
        os.environ[ARTIFACTS] = str(folder)
        loaded = load_fastest(job.model, share, check_all_files=True)
        # Here, because the workers would disturb each other's measurements.
        size = batch_sizes(job.model, loaded.runtime, share)[1].best(share.queue)
    except BaseException:
        discard(str(folder))
        raise
    chosen = replace(share, variant=loaded.record.variant, batch=size)
    return Prepared(settings=chosen, workers=workers, artifacts=str(folder))


def discard(folder: str) -> None:
    """Remove the folder of a node's bundle."""
    shutil.rmtree(folder, ignore_errors=True)


def default_workers(cores: int) -> int:
    """Return 2, or 1 per four cores on larger machines, or 1 on a single core; the workers share the threads."""
    return max(min(2, cores), cores // 4)


class Worker:
    """A process that scores chunks, with a model of its own.

    Args:
        node: variant, threads and bundle.
        output: path or URI of the job's output.
        job: the job to work on.
    """

    def __init__(self, node: Prepared, output: str, job: Job) -> None:
        if node.artifacts:
            os.environ[ARTIFACTS] = node.artifacts
        self._parts = PartsFolder(output)
        self._scorer = Scorer(node.settings, Pictures(job.input), job.top_k)

    def ready(self) -> None:
        """Return once the model is loaded."""

    def score(self, chunk: int) -> int:
        """Write the part of a chunk; return the number of its rows."""
        table = self._scorer.score(self._parts.names(chunk))
        self._parts.write(chunk, table)
        return int(table.num_rows)


def _unpack(files: Mapping[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
