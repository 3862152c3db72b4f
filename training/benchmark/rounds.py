"""Alternating measurement of the loops, in rounds."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from rich.progress import Progress

from models.common.host import host
from training.benchmark.config import BenchmarkConfig
from training.benchmark.gpu_utilization import GpuUtilization
from training.benchmark.loops import Epoch, bare_loop, our_epoch, preloaded_loop, timm_loop
from training.config.train import TrainConfig
from training.data.pictures import Data
from training.loop.build import build
from training.loop.distributed import joined

LIBRARIES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pillow")

PRELOADED = "no loading"


def benchmark(config: BenchmarkConfig, request: TrainConfig, data: Data, progress: Progress) -> dict[str, Any]:
    """Measure all loops alternately.

    Args:
        config: device and number of rounds.
        request: the run to measure.
        data: whole batches of its images.
        progress: shows the rounds.

    Returns:
        JSON-ready: the request, machine, versions and date, images/s of every round, and a summary of the
        ratios.

    Raises:
        HalftoneError: the weights can't be used.
    """
    with joined(config.device) as world:
        # Each loop has its own network; all start from the same weights.
        parts = build(request, data, world)
        loops = {"ours": our_epoch(parts), "bare": bare_loop(request, data, world)} | timm_loop(request, data, world)
        loops |= {PRELOADED: preloaded_loop(request, data, world)}
        on_gpu = world.device.type == "cuda"
        utilization = GpuUtilization(partial(torch.cuda.utilization, world.device) if on_gpu else None)
        with utilization:
            rates = _rates(loops, len(data.train), config.rounds, progress, utilization)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host() | ({"gpu": torch.cuda.get_device_name(world.device)} if on_gpu else {}),
        "versions": {name: version(name) for name in LIBRARIES},
        "request": asdict(config) | {"output": str(config.output) if config.output else None},
        "recipe": request.recipe,
        "batch": request.settings.batch,
        "pictures_per_round": len(data.train),
        "precision": str(parts.loop.learner.precision.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "images_per_second": rates,
        "gpu_busy": {name: utilization.mean(name) for name in loops},
        "ratio": _ratio(rates["ours"], rates["bare"]),
        "ratio_to_limit": _ratio(rates["ours"], rates[PRELOADED]),
        "ratio_to_timm": _ratio(rates["ours"], rates["timm"]) if "timm" in rates else None,
    }


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Summarise the ratios of the rates by round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def _rates(
    loops: dict[str, Epoch], pictures: int, rounds: int, progress: Progress, utilization: GpuUtilization
) -> dict[str, list[float]]:
    """Return images/s of each loop by round; the order is reversed in every other round."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    task = progress.add_task("measuring", total=(rounds + 1) * len(loops))
    for number in range(rounds + 1):
        for name in sorted(loops, reverse=bool(number % 2)):
            utilization.task = name if number else ""
            seconds = _timed(loops[name])
            if number:
                rates[name].append(pictures / seconds)
            progress.advance(task)
    return rates


def _timed(epoch: Epoch) -> float:
    start = time.perf_counter()
    epoch()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
