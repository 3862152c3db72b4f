"""Measure a loaded model at start-up, and choose its batch sizes and the number of batches in flight."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from export.cuda.device import GpuLostError
from export.runtime import Runtime
from serving.batching.cost_model import GAIN, AlwaysUpTo, BatchSizes, Costs
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

SIZES = (1, 2, 4, 8, 16, 32)
"""Sizes of batches to measure."""

_TICK = 1e-6

_KEEP_RATIO = 1.25
"""A size is kept if its cost per image is at most this multiple of that of the best smaller size."""

_STOP_RATIO, _STOP_COUNT = 1.6, 3
"""The measurement stops at a size whose cost per image is this multiple of the least one, or after N sizes without
gain."""

_TURNS = 5
"""Comparisons of a size with single images, whose median counts."""

_COPY_GAIN = 1.1
"""Ratio of two throughputs that is worth a copy of the weights on each stream, 80 MB of EfficientNet-Lite0 on two
cores. Up to it the smaller size is as good: fewer waiting images fill it."""

_BATCHES_DECIDE = 2.0
"""Least ratio of the throughput in batches to that of single images for which few large batches are better."""

_FEW_STREAMS = 2


def batch_sizes(
    name: str, runtime: Runtime, settings: Settings, known: tuple[int, Costs] | None = None
) -> tuple[int, BatchSizes]:
    """Choose the number of batches in flight and their sizes: by the settings, the known costs, or a measurement.

    Args:
        name: name of the model, for the log.
        runtime: the loaded variant.
        settings: the service's settings.
        known: number of batches in flight and costs of the same network, if another model has measured them.
    """
    threads = min(settings.worker_threads, runtime.streams)
    image = np.zeros((1, *runtime.shape), np.uint8)

    def run(size: int) -> None:
        runtime.run(np.repeat(image, size, axis=0))

    if settings.batch:
        for size in (size for size in SIZES if size <= settings.batch):
            run(size)
        runtime.keep({size for size in SIZES if size <= settings.batch} | {settings.batch})
        return threads, AlwaysUpTo(settings.batch)
    if known is not None:
        prepare(runtime, known[1].seconds)
        return known
    return _measured(name, runtime, threads, run, largest=min(settings.queue, runtime.largest_batch or SIZES[-1]))


def prepare(runtime: Runtime, sizes: Iterable[int]) -> None:
    """Run a batch of each size, so that no request waits for its preparation, and free those of other sizes."""
    sizes = list(sizes)
    for size in sizes:
        runtime.run(np.zeros((size, *runtime.shape), np.uint8))
    runtime.keep(sizes)


def guess(runtime: Runtime, settings: Settings) -> tuple[int, Costs]:
    """Return the costs of single images, one on each thread, for a model whose batches are measured later."""
    image = np.zeros((1, *runtime.shape), np.uint8)
    start = time.monotonic()
    runtime.run(image)
    return min(settings.worker_threads, runtime.streams), Costs({1: max(time.monotonic() - start, _TICK)})


def _measured(
    name: str, runtime: Runtime, threads: int, run: Callable[[int], None], *, largest: int
) -> tuple[int, Costs]:
    tried: set[int] = set()

    def prepare(size: int) -> None:
        # The runtime allocates for a new size before several threads run it.
        tried.add(size)
        runtime.keep(tried)

    measure_run = partial(measure, run, largest=largest, prepare=prepare)
    if runtime.inline:
        # Each thread computes on a core of its own: fewer of them would leave cores idle.
        streams, costs = threads, measure_run(streams=threads)
    else:
        streams, costs = fewest_streams(threads, lambda streams: measure_run(streams=streams))
    if runtime.copies_weights:
        costs = worth_their_memory(costs)
    runtime.keep(costs.seconds)
    figures = ", ".join(f"{size}: {1000 * seconds:.1f}" for size, seconds in costs.seconds.items())
    logger.info("%s: %d batches at once; milliseconds of a batch by its size: %s", name, streams, figures)
    return streams, costs


def throughput(runtime: Runtime, streams: int, sizes: BatchSizes, settings: Settings) -> float:
    """Return the images per second that a runtime runs in batches of sizes that it has run before."""
    if isinstance(sizes, Costs):
        return streams * sizes.throughput
    batch = np.zeros((sizes.best(settings.queue), *runtime.shape), np.uint8)
    start = time.monotonic()
    runtime.run(batch)
    return streams * len(batch) / max(time.monotonic() - start, _TICK)


def fewest_streams(threads: int, costs_with: Callable[[int], Costs]) -> tuple[int, Costs]:
    """Choose the number of batches in flight.

    If a batch costs about as much as its items one by one, it is the number of threads: each thread works on its own.
    If large batches are much better, as on a GPU, it is the smallest number with the same throughput: the queue then
    fills few large batches instead of many small ones.

    Args:
        threads: number of threads that run batches; the most streams.
        costs_with: measures the costs with a number of streams.

    Returns:
        The number of streams, 1 to `threads`, and the costs with them.
    """
    costs = costs_with(threads)
    if costs.throughput * costs.seconds[1] < _BATCHES_DECIDE:
        return threads, costs
    for streams in range(1, min(threads, _FEW_STREAMS + 1)):
        fewer = costs_with(streams)
        if fewer.throughput * streams * GAIN >= costs.throughput * threads:
            return streams, fewer
    return threads, costs


def measure(
    run: Callable[[int], object],
    *,
    streams: int,
    largest: int,
    seconds: float = 0.04,
    clock: Callable[[], float] = time.monotonic,
    prepare: Callable[[int], object] = lambda size: None,
) -> Costs:
    """Measure batches of 1, 2, 4, … on `streams` threads at once, as long as larger ones may pay.

    Each size is compared with single images in turns: the speed of a shared machine changes by half within a second.
    Takes little more than ten times `seconds` per size.

    Args:
        run: executes a batch of the given size; called from several threads at once.
        streams: batches in flight.
        largest: largest size to try.
        seconds: time to spend on each size and on single images in each turn, after a first run that does not count.
        clock: monotonic clock in seconds.
        prepare: called by the calling thread alone before it measures a size.

    Returns:
        The costs of all sizes, except those whose cost per image is over a quarter higher than a smaller size's, which
        are never worth trying, and those from the first size on that fails, for example for want of memory.

    Raises:
        Exception: the exception of `run` on a single item.
        GpuLostError: `run` raised it on any size.
    """
    table: dict[int, float] = {}
    least, without_gain = math.inf, 0
    singles: list[float] = []

    def images_of(size: int) -> float:
        """Return the duration of a batch as a multiple of that of a single image."""
        singles.append(_seconds_per_batch(run, 1, streams, seconds, clock))
        return 1 if size == 1 else _seconds_per_batch(run, size, streams, seconds, clock) / singles[-1]

    for size in (size for size in SIZES if size <= largest):
        try:
            prepare(size)
            cost = statistics.median(images_of(size) for _ in range(_TURNS))
        except GpuLostError:
            raise
        except Exception:
            if not table:
                raise
            break
        table[size] = cost
        each = cost / size
        if each > _STOP_RATIO * least:
            break
        without_gain = 0 if each * GAIN < least else without_gain + 1
        if without_gain == _STOP_COUNT:
            break
        least = min(least, each)
    # The lowest: another process may have taken the cores during the others.
    return Costs({size: cost * min(singles) for size, cost in _worth_trying(table).items()})


def _worth_trying(table: Mapping[int, float]) -> dict[int, float]:
    kept, smaller = {}, math.inf
    for size, cost in table.items():
        if cost / size <= _KEEP_RATIO * smaller:
            kept[size] = cost
        smaller = min(smaller, cost / size)
    return kept


def worth_their_memory(costs: Costs) -> Costs:
    """Return the costs of single images, and of one larger size if it is worth a copy of the weights on each stream."""
    each = {size: cost / size for size, cost in costs.seconds.items()}
    limit = _COPY_GAIN * min(each.values())
    if each[1] > limit:
        limit = min(limit, each[1] / _COPY_GAIN)
    chosen = next(size for size, cost in each.items() if cost <= limit)
    return Costs({size: cost for size, cost in costs.seconds.items() if size in (1, chosen)})


def _seconds_per_batch(
    run: Callable[[int], object], size: int, streams: int, seconds: float, clock: Callable[[], float]
) -> float:
    """Return the median duration of a batch while `streams` threads run such batches one after the other."""
    ready = threading.Barrier(streams)
    durations: list[float] = []
    failures: list[Exception] = []

    def work() -> None:
        try:
            run(size)
            ready.wait()
            start = now = clock()
            while now - start < seconds:
                before = now
                run(size)
                now = clock()
                durations.append(now - before)
        except threading.BrokenBarrierError:
            # Another thread failed, and reports why.
            return
        except Exception as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=work) for _ in range(streams)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise failures[0]
    # Not the mean: a single interruption by another process would decide it.
    return statistics.median(durations)
