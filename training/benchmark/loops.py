"""Loops to compare: ours, ours without loading, a bare one without this project, and timm's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from training.benchmark.timm_loop import folder, timm_epoch
from training.config.recipe import Recipe
from training.config.train import TrainConfig
from training.data.batches.loader import default_workers
from training.data.pictures import Data
from training.loop.build import Parts, build
from training.loop.checkpoints import RunFolder
from training.loop.distributed import World
from training.loop.learner import Position
from training.loop.progress import Display
from training.loop.signals import StopRequest

Epoch = Callable[[], None]
"""Runs a loop over all images once."""


def our_epoch(parts: Parts) -> Epoch:
    """Return a function that runs our loop over all images once."""
    loop = parts.loop
    folder, stop = RunFolder(Path("benchmark")), StopRequest()
    display = Display(steps=loop.steps_per_epoch, quiet=True)

    def epoch() -> None:
        loop.position = Position()
        loop.sums.zero_()
        loop.train_epoch(folder, display, stop, math.inf)

    return epoch


def _workers(request: TrainConfig) -> int:
    return default_workers(1) if request.running.workers is None else request.running.workers


def timm_loop(request: TrainConfig, data: Data, world: World) -> dict[str, Epoch]:
    """Return timm's loop by name; nothing if timm can't read the data, or if layers are frozen."""
    recipe = request.settings
    pictures = folder(request.data, data.train.labels, recipe.augment)
    if pictures is None or recipe.transfer.freeze != "full":
        return {}
    parts = build(request, data, world)
    return {"timm": timm_epoch(parts, pictures, recipe, count=len(data.train), workers=_workers(request))}


def preloaded_loop(request: TrainConfig, data: Data, world: World) -> Epoch:
    """Return our loop on one batch, without reading, augmenting and copying."""
    # Without loader processes, which would go on prefetching during the other loops.
    parts = build(replace(request, running=replace(request.running, workers=0)), data, world)
    loop = parts.loop
    step, batches = next(iter(loop.training.epoch(0)))
    on_device = [(pixels.to(world.device), labels.to(world.device)) for pixels, labels in batches]
    loop.learner.begin_epoch(0)

    def epoch() -> None:
        for _ in range(loop.steps_per_epoch):
            loop.train_step(step, on_device)

    return epoch


def bare_loop(request: TrainConfig, data: Data, world: World) -> Epoch:
    """Return `bare_epoch` with its own network and loader."""
    workers = _workers(request)
    parts = build(request, data, world)
    loader = DataLoader(
        parts.loop.training.pictures,
        batch_size=request.settings.batch,
        shuffle=True,
        num_workers=workers,
        pin_memory=world.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    return bare_epoch(parts, loader, request.settings)


def bare_epoch(parts: Parts, loader: DataLoader[Any], recipe: Recipe) -> Epoch:
    """Return a minimal loop over all images, with the recipe's arithmetic and nothing else."""
    learner, targets, normalise = parts.loop.learner, parts.loop.targets, parts.loop.normalise
    precision, scaler, optimiser = learner.precision, learner.scaler, learner.optimiser
    clip, accumulate = recipe.optimisation.clip, recipe.optimisation.accumulate

    def epoch() -> None:
        learner.begin_epoch(0)
        for number, (pixels, classes, _) in enumerate(loader, start=1):
            images = normalise(pixels.to(precision.device, non_blocking=True))
            images = images.contiguous(memory_format=precision.memory_format)
            labels = classes.to(precision.device, non_blocking=True)
            if targets.mixing is not None:
                images, labels = targets.mixing.mixup(images, labels)
            with precision.autocast():
                logits = learner.forward(images)
                teacher_logits = targets.teacher.logits(images) if targets.teacher is not None else None
            loss: Any = scaler.scale(targets.loss(logits.float(), labels, teacher_logits) / (len(images) * accumulate))
            loss.backward()
            if number % accumulate:
                continue
            if clip is not None:
                scaler.unscale_(optimiser)
                torch.nn.utils.clip_grad_norm_(learner.module.parameters(), clip)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            if learner.ema is not None:
                learner.ema.update(learner.module)

    return epoch
