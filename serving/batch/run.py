"""A scoring run: start or resume a job, distribute its chunks over workers, merge the parts."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.bundle.manifest import Manifest
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.batch.inputs import Pictures
from serving.batch.job import Job, PartsFolder
from serving.batch.ray_executor import check_reachable, score_chunks
from serving.batch.schedule import RefusedNode, ScoredChunk
from serving.batching.autotune import batch_sizes
from serving.lifecycle.loading import load_fastest
from serving.lifecycle.selection import check_bundle
from serving.settings import Settings

EACH = "the fastest of each node"
"""Variant of a job whose nodes choose for themselves."""

Choose = Callable[[Settings, Job | None], tuple[Manifest, str, Settings]]
"""Returns the manifest, the variant of the job and the settings of its workers."""


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

    nodes: dict[str, tuple[int, str]]
    """Of a cluster: name of each node to the number of images that it scored now, and its variant."""

    refused: list[RefusedNode]
    """Nodes of a cluster that could not score."""


def score(
    settings: Settings,
    *,
    location: str,
    output: str,
    top_k: int,
    progress: Callable[[int, int], None],
    workers: int = 0,
    ray_address: str = "",
) -> Result | Job:
    """Score every image of a folder into a Parquet file; resume an earlier run that was interrupted.

    Args:
        settings: the service's settings; `model` names the bundle, `threads` are those of all workers together.
        location: folder or URI.
        output: path or URI of the Parquet file.
        top_k: classes in each row; all if the model has fewer.
        progress: called with the number of finished images and of all images.
        workers: number of processes, on each node of a cluster; 0: by the cores.
        ray_address: of an existing Ray cluster; empty: this machine alone.

    Returns:
        The result, or the job of an earlier run if the output was complete already.

    Raises:
        HalftoneError: the input, the model or the output can't be used, or the output belongs to another job.
    """
    start = time.monotonic()
    if ray_address:
        check_reachable(ray_address)
    output = _absolute(output)
    pictures, parts = Pictures(location), PartsFolder(output)
    with parts.locked():
        earlier = parts.unfinished_job() or parts.finished_job()
        choose = _each_node_chooses if ray_address else _choose_here
        job, settings = _job(settings, pictures, top_k, earlier, parts, choose)
        if parts.finished:
            return job
        job, added, sizes = _listed(job, pictures, parts, earlier)
        # Large files last would keep one worker busy alone (longest processing time first: Graham 1969).
        missing = sorted(parts.missing(job), key=lambda chunk: -sizes[chunk])
        kept = job.pictures - sum(job.size(chunk) for chunk in missing)
        events = score_chunks(settings, output, job, missing, workers, ray_address) if missing else iter(())
        chunks, refused = _follow(events, kept, job.pictures, progress)
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
        nodes=_by_node(chunks) if ray_address else {},
        refused=refused,
    )


def _listed(job: Job, pictures: Pictures, parts: PartsFolder, earlier: Job | None) -> tuple[Job, int, list[int]]:
    """List the images and start the job, or go on with the earlier one.

    The names are the files' from here on: those of a million images would take 200 MB as long as the run.

    Returns:
        The job, how many images have come since its start, and the bytes of each chunk.
    """
    (names, sizes), added = pictures.listed(), 0
    if earlier:
        of_job, size_of = parts.names(), dict(zip(names, sizes, strict=True))
        added = len(size_of.keys() - set(of_job))
        sizes = array("q", (size_of.get(name, 0) for name in of_job))
    else:
        job = replace(job, pictures=len(names))
        parts.start(job, names)
    return job, added, [sum(sizes[start : start + job.chunk]) for start in range(0, job.pictures, job.chunk)]


def _job(
    settings: Settings, pictures: Pictures, top_k: int, earlier: Job | None, parts: PartsFolder, choose: Choose
) -> tuple[Job, Settings]:
    """Return the job of this command and the settings of its workers; refuse another than the earlier one."""
    manifest, variant, settings = choose(settings, earlier)
    if top_k < 1:
        raise HalftoneError(f"--top-k must be at least 1, not {top_k}")
    job = Job(
        input=_absolute(pictures.location),
        model=settings.model,
        version=manifest.version,
        variant=variant,
        top_k=min(top_k, len(manifest.labels)),
        max_pixels=settings.max_pixels,
        max_bytes=settings.max_body,
        pictures=earlier.pictures if earlier else 0,
    )
    if earlier and earlier != job:
        _refuse(earlier, job, parts)
    return job, settings


def _choose_here(settings: Settings, earlier: Job | None) -> tuple[Manifest, str, Settings]:
    """Return the variant for this machine, and the settings with it and its batches."""
    if earlier and not settings.variant and earlier.variant != EACH:
        settings = replace(settings, variant=earlier.variant)
    loaded = load_fastest(settings.model, settings)
    # Measured here once: the workers would disturb each other's measurements.
    size = batch_sizes(settings.model, loaded.runtime, settings)[1].best(settings.queue)
    chosen = replace(settings, variant=loaded.record.variant, batch=size)
    return loaded.bundle.manifest, chosen.variant, chosen


def _each_node_chooses(settings: Settings, _: Job | None) -> tuple[Manifest, str, Settings]:
    """Check the bundle; this machine may be too small to run it."""
    bundle = open_bundle(settings.model)
    check_bundle(settings.model, bundle, settings)
    return bundle.manifest, settings.variant or EACH, settings


def _refuse(earlier: Job, job: Job, parts: PartsFolder) -> None:
    changes = [
        f"{name} was {old!r} and is {getattr(job, name)!r} now"
        for name, old in vars(earlier).items()
        if old != getattr(job, name)
    ]
    path = parts.output if parts.finished else parts.folder
    raise HalftoneError(
        f"{path} is of another run ({'; '.join(changes)}): run the command as it was, remove {path} to start again, "
        "or name another --output"
    )


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())


def _follow(
    events: Iterator[ScoredChunk | RefusedNode], kept: int, pictures: int, progress: Callable[[int, int], None]
) -> tuple[list[ScoredChunk], list[RefusedNode]]:
    """Show the progress of a run; return its chunks, and the nodes that could not score."""
    progress(kept, pictures)
    chunks: list[ScoredChunk] = []
    refused: list[RefusedNode] = []
    for event in events:
        if isinstance(event, RefusedNode):
            refused.append(event)
            continue
        chunks.append(event)
        kept += event.rows
        progress(kept, pictures)
    return chunks, refused


def _by_node(chunks: Sequence[ScoredChunk]) -> dict[str, tuple[int, str]]:
    variants = {each.node: each.variant for each in chunks}
    return {
        node: (sum(each.rows for each in chunks if each.node == node), variant) for node, variant in variants.items()
    }
