"""A run from start to end: begin it or take it up again, spread it, put the parts together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from models.common.errors import HalftoneError
from models.common.host import cores
from serving.batch.inputs import Pictures
from serving.batch.job import Job, Workplace, made
from serving.batch.ray_executor import Done, score_chunks
from serving.batching.autotune import batch_sizes
from serving.lifecycle.loading import open_fastest
from serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run did."""

    job: Job
    """What was scored."""

    kept: int
    """Pictures that earlier runs had scored."""

    added: int
    """Pictures in the folder now that weren't there when the run began, and are not in the output."""

    errors: dict[str, int]
    """Error code to number of rows."""

    scoring_seconds: float
    """From the first picture of this run to its last, without starting Ray and the workers; 0 where none was left."""

    seconds: float
    """All of it."""


def score(
    settings: Settings, *, location: str, output: Path, top_k: int, workers: int, progress: Callable[[int, int], None]
) -> Result | Job:
    """Score every picture of a folder into a Parquet file, going on where an earlier run was ended.

    Args:
        settings: of the service; `model` names the bundle, `threads` are those of all workers together.
        location: folder or URI.
        output: the Parquet file.
        top_k: classes in each row.
        workers: processes.
        progress: is told how many pictures of how many are done.

    Returns:
        What was done, or the job of an earlier run where the output was complete already.

    Raises:
        HalftoneError: the input, the model or the output can't be used, or another run was begun here.
    """
    start = time.monotonic()
    pictures, place = Pictures(location), Workplace(output)
    with place.claimed():
        begun = place.job() or (made(output) if output.exists() else None)
        job, settings = _job(settings, pictures, top_k, begun, place)
        if output.exists():
            return job
        names = pictures.names()
        if begun is None:
            job = replace(job, pictures=len(names))
            place.begin(job, names)
        added = len(set(names) - set(place.names())) if begun else 0
        done, kept = _work(settings, place, job, workers, progress)
        errors = place.finish(job)
    spent = max(each.ended for each in done) - min(each.begun for each in done) if done else 0.0
    seconds = time.monotonic() - start
    return Result(job=job, kept=kept, added=added, errors=errors, scoring_seconds=spent, seconds=seconds)


def default_workers() -> int:
    """Two where there are two cores, and one for every four cores of larger machines; they share the threads."""
    return max(min(2, cores()), cores() // 4)


def _job(
    settings: Settings, pictures: Pictures, top_k: int, begun: Job | None, place: Workplace
) -> tuple[Job, Settings]:
    """What this command asks for, which is what an earlier one began, and the settings with its variant and batches."""
    if begun and not settings.variant:
        settings = replace(settings, variant=begun.variant)
    opened = open_fastest(settings.model, settings)
    manifest = opened.bundle.manifest
    if not 1 <= top_k <= len(manifest.labels):
        raise HalftoneError(f"--top-k must be from 1 to the {len(manifest.labels)} classes of the model, not {top_k}")
    job = Job(
        input=_absolute(pictures.location),
        model=settings.model,
        version=manifest.version,
        variant=opened.record.variant,
        top_k=top_k,
        max_pixels=settings.max_pixels,
        max_bytes=settings.max_body,
        pictures=begun.pictures if begun else 0,
    )
    if begun and begun != job:
        _refuse(begun, job, place)
    # Measured here once: the workers would disturb each other's measurements.
    size = batch_sizes(settings.model, opened.runtime, settings)[1].best(settings.queue)
    return job, replace(settings, variant=job.variant, batch=size)


def _refuse(begun: Job, job: Job, place: Workplace) -> None:
    changes = [
        f"{name} was {old!r} and is {getattr(job, name)!r} now"
        for name, old in vars(begun).items()
        if old != getattr(job, name)
    ]
    there = place.output if place.output.exists() else place.folder
    raise HalftoneError(
        f"{there} is of another run ({'; '.join(changes)}): run the command as it was, remove {there} to begin again, "
        "or name another --output"
    )


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())


def _work(
    settings: Settings, place: Workplace, job: Job, workers: int, progress: Callable[[int, int], None]
) -> tuple[list[Done], int]:
    missing = place.missing(job)
    kept = job.pictures - sum(job.size(chunk) for chunk in missing)
    progress(kept, job.pictures)
    if not missing:
        return [], kept
    workers = min(workers, len(missing))
    each = replace(settings, threads=max(1, settings.worker_threads // workers))
    done, known = [], kept
    for chunk in score_chunks(each, place.output, job, missing, workers):
        done.append(chunk)
        known += chunk.rows
        progress(known, job.pictures)
    return done, kept
