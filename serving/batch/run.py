"""A scoring run: start or resume a job, distribute its chunks over workers, merge the parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from models.common.errors import HalftoneError
from models.common.host import cores
from serving.batch.inputs import Pictures
from serving.batch.job import Job, PartsFolder, finished_job
from serving.batch.ray_executor import ScoredChunk, score_chunks
from serving.batching.autotune import batch_sizes
from serving.lifecycle.loading import load_fastest
from serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a run."""

    job: Job
    """The finished job."""

    kept: int
    """Images that earlier runs had scored."""

    added: int
    """Images that came into the folder after the job was started; they are not in the output."""

    left_out: list[str]
    """Names of the files that are no images."""

    errors: dict[str, int]
    """Error code to number of rows."""

    scoring_seconds: float
    """Time from the first image of this run to its last, without starting Ray and the workers; 0 if none was left."""

    seconds: float
    """Duration of the whole run."""


def score(
    settings: Settings, *, location: str, output: Path, top_k: int, workers: int, progress: Callable[[int, int], None]
) -> Result | Job:
    """Score every image of a folder into a Parquet file; resume an earlier run that was interrupted.

    Args:
        settings: the service's settings; `model` names the bundle, `threads` are those of all workers together.
        location: folder or URI.
        output: the Parquet file.
        top_k: classes in each row; all if the model has fewer.
        workers: number of processes.
        progress: called with the number of finished images and of all images.

    Returns:
        The result, or the job of an earlier run if the output was complete already.

    Raises:
        HalftoneError: the input, the model or the output can't be used, or the output belongs to another job.
    """
    start = time.monotonic()
    pictures, parts = Pictures(location), PartsFolder(output)
    with parts.locked():
        earlier = parts.unfinished_job() or (finished_job(output) if output.exists() else None)
        job, settings = _job(settings, pictures, top_k, earlier, parts)
        if output.exists():
            return job
        names = pictures.names()
        if earlier is None:
            job = replace(job, pictures=len(names))
            parts.start(job, names)
        added = len(set(names) - set(parts.names())) if earlier else 0
        chunks, kept = _score_missing(settings, parts, job, workers, progress)
        errors = parts.finish(job)
    spent = max(each.ended for each in chunks) - min(each.started for each in chunks) if chunks else 0.0
    seconds = time.monotonic() - start
    return Result(
        job=job,
        kept=kept,
        added=added,
        left_out=pictures.left_out,
        errors=errors,
        scoring_seconds=spent,
        seconds=seconds,
    )


def default_workers() -> int:
    """Return 2, or 1 per four cores on larger machines, or 1 on a single core; the workers share the threads."""
    return max(min(2, cores()), cores() // 4)


def _job(
    settings: Settings, pictures: Pictures, top_k: int, earlier: Job | None, parts: PartsFolder
) -> tuple[Job, Settings]:
    """Return the job of this command and the settings with its variant and batches; refuse another than the earlier."""
    if earlier and not settings.variant:
        settings = replace(settings, variant=earlier.variant)
    loaded = load_fastest(settings.model, settings)
    manifest = loaded.bundle.manifest
    if top_k < 1:
        raise HalftoneError(f"--top-k must be at least 1, not {top_k}")
    job = Job(
        input=_absolute(pictures.location),
        model=settings.model,
        version=manifest.version,
        variant=loaded.record.variant,
        top_k=min(top_k, len(manifest.labels)),
        max_pixels=settings.max_pixels,
        max_bytes=settings.max_body,
        pictures=earlier.pictures if earlier else 0,
    )
    if earlier and earlier != job:
        _refuse(earlier, job, parts)
    # Measured here once: the workers would disturb each other's measurements.
    size = batch_sizes(settings.model, loaded.runtime, settings)[1].best(settings.queue)
    return job, replace(settings, variant=job.variant, batch=size)


def _refuse(earlier: Job, job: Job, parts: PartsFolder) -> None:
    changes = [
        f"{name} was {old!r} and is {getattr(job, name)!r} now"
        for name, old in vars(earlier).items()
        if old != getattr(job, name)
    ]
    path = parts.output if parts.output.exists() else parts.folder
    raise HalftoneError(
        f"{path} is of another run ({'; '.join(changes)}): run the command as it was, remove {path} to start again, "
        "or name another --output"
    )


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())


def _score_missing(
    settings: Settings, parts: PartsFolder, job: Job, workers: int, progress: Callable[[int, int], None]
) -> tuple[list[ScoredChunk], int]:
    """Score the chunks without a part; return them, and the number of images that earlier runs had scored."""
    missing = parts.missing(job)
    kept = job.pictures - sum(job.size(chunk) for chunk in missing)
    progress(kept, job.pictures)
    if not missing:
        return [], kept
    workers = min(workers, len(missing))
    of_a_worker = replace(settings, threads=max(1, settings.worker_threads // workers))
    chunks, scored = [], kept
    for chunk in score_chunks(of_a_worker, parts.output, job, missing, workers):
        chunks.append(chunk)
        scored += chunk.rows
        progress(scored, job.pictures)
    return chunks, kept
