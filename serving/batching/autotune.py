"""How large a loaded model's batches should be, how many at once, and what it runs a second then."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from export.cuda.device import GpuLostError
from export.runtime import Runtime
from serving.batching.cost_model import _GAIN, AlwaysUpTo, BatchSizes, Costs
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


SIZES = (1, 2, 4, 8, 16, 32)

_HOPELESS = 1.25

_WORSE = 1.6

_IN_VAIN = 3

_BATCHES_DECIDE = 2.0

_FEW = 2


def fewest_streams(threads: int, costs_with: Callable[[int], Costs]) -> tuple[int, Costs]:
    """How many batches should be in flight, and what batches cost then.

    As many as there are threads, where a batch costs about as much as its items one by one: each thread then works on
    its own. Where large batches are much better, as on a GPU, the fewest that reach the same throughput: what waits
    fills few large batches rather than many small ones.

    Args:
        threads: that work; the most streams.
        costs_with: measures with a number of streams.

    Returns:
        The number of streams, 1 to `threads`, and the costs with them.
    """
    costs = costs_with(threads)
    if costs.throughput * costs.seconds[1] < _BATCHES_DECIDE:
        return threads, costs
    for streams in range(1, min(threads, _FEW + 1)):
        fewer = costs_with(streams)
        if fewer.throughput * streams * _GAIN >= costs.throughput * threads:
            return streams, fewer
    return threads, costs


def measure(
    run: Callable[[int], object],
    *,
    streams: int,
    largest: int,
    seconds: float = 0.05,
    clock: Callable[[], float] = time.monotonic,
    prepare: Callable[[int], object] = lambda size: None,
) -> Costs:
    """Measure batches of 1, 2, 4, … on `streams` threads at once, as long as bigger ones may pay.

    Takes little more than twice `seconds` a size.

    Args:
        run: executes a batch of the given size; called from several threads at once.
        streams: batches in flight.
        largest: biggest size to try.
        seconds: time to spend on each size, twice, beside a first run that is not counted.
        clock: monotonic seconds.
        prepare: called by this thread alone before a size is measured.

    Returns:
        All sizes but those that cost over a quarter more a picture than a smaller one: they are never worth trying; and
        none from the first one on that fails, for want of memory say.

    Raises:
        Exception: what `run` raised on a single item.
        GpuLostError: it raised this one.
    """
    table: dict[int, float] = {}
    least, in_vain = math.inf, 0
    for size in (size for size in SIZES if size <= largest):
        try:
            prepare(size)
            # The lower of two: something else that took the cores for a while would rule the size out.
            cost = min(_seconds_per_batch(run, size, streams, seconds, clock) for _ in range(2))
        except GpuLostError:
            raise
        except Exception:
            if not table:
                raise
            break
        table[size] = cost
        each = cost / size
        if each > _WORSE * least:
            break
        in_vain = 0 if each * _GAIN < least else in_vain + 1
        if in_vain == _IN_VAIN:
            break
        least = min(least, each)
    return Costs(_worth_trying(table))


def _worth_trying(table: Mapping[int, float]) -> dict[int, float]:
    kept, smaller = {}, math.inf
    for size, cost in table.items():
        if cost / size <= _HOPELESS * smaller:
            kept[size] = cost
        smaller = min(smaller, cost / size)
    return kept


def _seconds_per_batch(
    run: Callable[[int], object], size: int, streams: int, seconds: float, clock: Callable[[], float]
) -> float:
    """Median seconds of a batch while `streams` threads run such batches one after the other."""
    ready = threading.Barrier(streams)
    taken: list[float] = []
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
                taken.append(now - before)
        except threading.BrokenBarrierError:
            # Another thread failed, and says why.
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
    # Not the mean: something else that takes the cores for a moment would decide.
    return statistics.median(taken)
