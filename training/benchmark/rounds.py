"""The loops in turn, round for round."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from models.catalog import architecture
from models.errors import HalftoneError
from models.host import host
from training.benchmark.busy import Busy
from training.benchmark.config import BenchmarkConfig
from training.benchmark.loops import Epoch, bare_loop, our_epoch, still_loop, timm_loop
from training.build import build
from training.config import Running, TrainConfig, choose_recipe, load_recipe
from training.data.source import Data, load_data
from training.data.split import stratified_sample
from training.data.views import SelectedPictures
from training.distributed import joined
from training.settings import Recipe
from training.transfer import resolve_freeze

LIBRARIES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pillow")

STILL = "no loading"


def benchmark(config: BenchmarkConfig, progress: Progress) -> dict[str, Any]:
    """Measure all loops in turn.

    Args:
        config: what and how long.
        progress: shows the rounds.

    Returns:
        JSON-ready: the request, machine, versions and date, images/s of every round, and the ratio's summary.

    Raises:
        HalftoneError: the data, model, weights or recipe can't be used.
    """
    with joined(config.device) as world:
        request, data = _request(config)
        # Each loop has a network of its own; all start from the same weights.
        parts = build(request, data, world)
        loops = {"ours": our_epoch(parts), "bare": bare_loop(request, data, world)} | timm_loop(request, data, world)
        loops |= {STILL: still_loop(request, data, world)}
        busy = Busy(partial(torch.cuda.utilization, world.device) if world.device.type == "cuda" else None)
        with busy:
            rates = _rates(loops, len(data.train), config.rounds, progress, busy)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host() | ({"gpu": torch.cuda.get_device_name(world.device)} if world.device.type == "cuda" else {}),
        "versions": {name: version(name) for name in LIBRARIES},
        "request": asdict(config) | {"output": str(config.output) if config.output else None},
        "recipe": request.recipe,
        "batch": request.settings.batch,
        "pictures_per_round": len(data.train),
        "precision": str(parts.loop.learner.precision.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "images_per_second": rates,
        "gpu_busy": {name: busy.mean(name) for name in loops},
        "ratio": _ratio(rates["ours"], rates["bare"]),
        "ratio_to_limit": _ratio(rates["ours"], rates[STILL]),
        "ratio_to_timm": _ratio(rates["ours"], rates["timm"]) if "timm" in rates else None,
    }


def _ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Of the rates of each round."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def _request(config: BenchmarkConfig) -> tuple[TrainConfig, Data]:
    """The run that is measured, and whole batches of its pictures."""
    data, network = load_data(config.data), architecture(config.model)
    name = choose_recipe(config.recipe, pictures=len(data.train), family=network.family)
    recipe = load_recipe(name)
    # What is frozen depends on all the pictures, not on those of a round.
    freeze = resolve_freeze(recipe.transfer.freeze, pictures=len(data.train), pretrained=config.weights != "random")
    transfer = replace(recipe.transfer, freeze=freeze, size=config.size or recipe.transfer.size)
    recipe = replace(recipe, batch=config.batch or recipe.batch, transfer=transfer)
    request = TrainConfig(
        data=config.data,
        model=config.model,
        output=Path("benchmark"),
        recipe=name,
        weights=config.weights,
        running=Running(device=config.device, workers=config.workers, log=()),
        settings=recipe,
    )
    return request, _whole_batches(data, recipe, config.steps)


def _whole_batches(data: Data, recipe: Recipe, steps: int) -> Data:
    """So many pictures that every optimiser step has all its batches full."""
    step = recipe.batch * recipe.optimisation.accumulate
    count = min(steps * recipe.batch, len(data.train)) // step * step
    if count < max(step, len(data.train.labels)):
        raise HalftoneError(
            f"{min(steps * recipe.batch, len(data.train))} pictures are too few for a batch of {step} and "
            f"{len(data.train.labels)} classes: lower --batch, raise --steps, or take more data"
        )
    return replace(data, train=SelectedPictures(data.train, stratified_sample(data.train, count, seed=0)))


def _rates(
    loops: dict[str, Epoch], pictures: int, rounds: int, progress: Progress, busy: Busy
) -> dict[str, list[float]]:
    """Images/s of each loop by round; which one begins alternates."""
    rates: dict[str, list[float]] = {name: [] for name in loops}
    task = progress.add_task("measuring", total=(rounds + 1) * len(loops))
    for number in range(rounds + 1):
        for name in sorted(loops, reverse=bool(number % 2)):
            busy.during = name if number else ""
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
