"""Latency and throughput of a bundle's variants on this machine.

All variants are loaded before the first is timed, and take turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from export.benchmark import speed
from export.runtime import Runtime
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.host import cores

BATCHES = (1, 8, 32)
CONCURRENT_BATCHES = (1, 8)
"""Batch sizes to run from several threads at once, as the service does."""

WARM_UP = 2


@dataclass(kw_only=True)
class Timing:
    """Measurements of one variant, round by round."""

    milliseconds: dict[int, list[float]] = field(default_factory=dict)
    """Batch size to the median duration of a call in each round."""

    concurrent: dict[int, list[float]] = field(default_factory=dict)
    """Batch size to the images/s of one thread per core, in each round."""

    def rates(self) -> dict[str, float]:
        """Return the images/s, medians over the rounds: `batch 1`, …, and concurrently `1 x THREADS`, …."""
        found = {
            f"batch {batch}": 1000 * batch / statistics.median(values) for batch, values in self.milliseconds.items()
        }
        return found | {f"{batch} x {cores()}": statistics.median(values) for batch, values in self.concurrent.items()}

    def best(self) -> tuple[str, float]:
        """Return the key of `rates` with the highest rate, and that rate."""
        rates = self.rates()
        way = max(rates, key=lambda name: rates[name])
        return way, rates[way]


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    whole: Runtime
    """Runs one call at a time on all threads."""

    shared: Runtime
    """Runs one call per core at once."""


def compare_variants(
    bundle: Bundle, variants: list[str], *, rounds: int, seconds: float, advance: Callable[[], None]
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time variants in turn.

    Args:
        bundle: holds the files of the variants.
        variants: `RUNTIME-PRECISION`.
        rounds: number of turns of each variant.
        seconds: duration of a measurement: one batch size in one turn.
        advance: called after every turn.

    Returns:
        The timings by variant, and the reason for each variant that can't be loaded here.
    """
    loaded, refused = {}, {}
    for variant in variants:
        try:
            loaded[variant] = _load(bundle, variant)
        except HalftoneError as error:
            refused[variant] = str(error)
    timings = {variant: Timing() for variant in loaded}
    for _ in range(rounds):
        for variant, runtimes in loaded.items():
            _turn(timings[variant], runtimes, seconds)
            advance()
    return timings, refused


def _load(bundle: Bundle, variant: str) -> _Loaded:
    whole, shared = (load(bundle, variant, threads=cores(), streams=streams) for streams in (1, cores()))
    return _Loaded(whole=whole, shared=shared)


def _turn(timing: Timing, runtimes: _Loaded, seconds: float) -> None:
    for batch in BATCHES:
        timing.milliseconds.setdefault(batch, []).append(_call(runtimes.whole, batch, seconds))
    for batch in CONCURRENT_BATCHES:
        rate = speed.rate(runtimes.shared, cores(), seconds, batch=batch)
        timing.concurrent.setdefault(batch, []).append(rate)


def _call(runtime: Runtime, batch: int, seconds: float) -> float:
    """Return the median milliseconds of `run` on a batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *runtime.shape), dtype=np.uint8)
    for _ in range(WARM_UP):
        runtime.run(pixels)
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while not durations or time.perf_counter() < end:
        start = time.perf_counter()
        runtime.run(pixels)
        durations.append(time.perf_counter() - start)
    return 1000 * statistics.median(durations)
