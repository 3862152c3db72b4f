"""How large a loaded model's batches should be, how many at once, and what it runs a second then."""

from __future__ import annotations

import logging
import time
from functools import partial

import numpy as np

from export.runtimes.base import Runtime
from serving.costs import SIZES, AlwaysUpTo, BatchSizes, Costs, fewest_streams, measure
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

_TICK = 1e-6


def batch_sizes(
    name: str, runtime: Runtime, settings: Settings, known: tuple[int, Costs] | None = None
) -> tuple[int, BatchSizes]:
    """How many batches at once and how large: as the settings say, or by what they cost on this machine now.

    Args:
        name: of the model, for the log.
        runtime: to measure.
        settings: of the service.
        known: what is known of it already.
    """
    threads = min(settings.worker_threads, runtime.streams)
    picture = np.zeros((1, *runtime.shape), np.uint8)

    def run(size: int) -> None:
        runtime.run(np.repeat(picture, size, axis=0))

    if settings.batch:
        for size in (size for size in SIZES if size <= settings.batch):
            run(size)
        runtime.keep({size for size in SIZES if size <= settings.batch} | {settings.batch})
        return threads, AlwaysUpTo(settings.batch)
    if known is not None:
        for size in known[1].seconds:
            run(size)
        runtime.keep(known[1].seconds)
        return known
    tried: set[int] = set()

    def prepare(size: int) -> None:
        # What a size needs is made before several threads run it.
        tried.add(size)
        runtime.keep(tried)

    costs_of = partial(measure, run, largest=settings.queue, prepare=prepare)
    streams, costs = fewest_streams(threads, lambda streams: costs_of(streams=streams))
    runtime.keep(costs.seconds)
    figures = ", ".join(f"{size}: {1000 * seconds:.1f}" for size, seconds in costs.seconds.items())
    logger.info("%s: %d batches at once; milliseconds of a batch by its size: %s", name, streams, figures)
    return streams, costs


def rate(runtime: Runtime, streams: int, sizes: BatchSizes, settings: Settings) -> float:
    """Pictures a second that a runtime runs in such batches, which it has run before."""
    if isinstance(sizes, Costs):
        return streams * sizes.throughput
    batch = np.zeros((sizes.best(settings.queue), *runtime.shape), np.uint8)
    start = time.monotonic()
    runtime.run(batch)
    return streams * len(batch) / max(time.monotonic() - start, _TICK)
