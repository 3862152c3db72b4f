"""One training run from its request to its bundle: what is needed is built, a checkpoint is taken up, the loop runs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import torch

from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from training.config.train import TrainConfig
from training.data.balance import imbalance_warning
from training.data.pictures import Data
from training.loop.build import Parts, build
from training.loop.checkpoints import RunFolder
from training.loop.distributed import World, joined
from training.loop.loggers import open_loggers
from training.loop.progress import Display
from training.loop.resume import check_output, complete
from training.loop.signals import listening
from training.loop.validate import answers
from training.loop.write_bundle import Outcome, lineage, write_bundle
from training.optim.transfer import HEAD


def train(config: TrainConfig, data: Data) -> Bundle | None:
    """Train, or go on training, and write the bundle; in every process of the world.

    Args:
        config: with the recipe's values filled in.
        data: the pictures.

    Returns:
        The bundle in the main process, None in the others.

    Raises:
        HalftoneError: the request can't be carried out, or training diverged.
        StoppedError: the user stopped the run; its state is saved.
    """
    folder = RunFolder(config.output)
    with joined(config.running.device) as world, contextlib.ExitStack() as held:

        def prepare() -> None:
            held.enter_context(folder.locked())
            _prepare(config, data, folder)

        world.first(prepare)
        bundle = _train(config, data, folder, world)
        if world.main:
            folder.finish()
        return bundle


def _prepare(config: TrainConfig, data: Data, folder: RunFolder) -> None:
    """Make sure that the unfinished run in the folder, if any, is this one."""
    check_output(config)
    if config.restart:
        folder.discard()
    identity = {"config": config.identity()} | lineage(config, data)
    unfinished = folder.identity()
    if unfinished is None:
        folder.discard()
        folder.begin(identity)
    elif unfinished != identity:
        raise HalftoneError(
            f"an unfinished run of {config.output} was started with other {_difference(unfinished, identity)}: go on "
            f"with it by `python -m training --output {config.output} --resume`, or throw it away with --restart"
        )


def _difference(theirs: Any, ours: Any, path: str = "") -> str:
    """Where two nested settings differ first, in words."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in {**theirs, **ours}:
            if theirs.get(name) != ours.get(name):
                return _difference(theirs.get(name), ours.get(name), f"{path}.{name}".removeprefix("."))
    name = path.removeprefix("config.").removeprefix("settings.")
    return f"settings ({name}: {theirs!r}, now {ours!r})"


def _train(config: TrainConfig, data: Data, folder: RunFolder, world: World) -> Bundle | None:
    if complete(config.output):
        return Bundle.open(config.output) if world.main else None
    parts = build(config, data, world)
    loop, epochs = parts.loop, config.settings.epochs
    resumed = loop.restore(folder)
    steps = epochs * loop.steps_per_epoch
    # Only the main process draws and logs.
    names = config.running.log if world.main else ()
    with Display(steps=steps, done=loop.global_step(), quiet=not world.main) as display, listening() as stop:
        _announce(display, config, data, parts, resumed=resumed)
        loggers = open_loggers(
            names, folder=folder.path, name=config.name, config=config.identity(), step=loop.global_step()
        )
        try:
            loop.run(folder, display, loggers, stop, checkpoint_seconds=config.running.checkpoint_minutes * 60)
        finally:
            for logger in loggers:
                logger.close()
    return _finish(config, data, folder, world, parts)


def _announce(display: Display, config: TrainConfig, data: Data, parts: Parts, *, resumed: bool) -> None:
    loop, recipe = parts.loop, config.settings
    lowest = loop.learner.freezing.learning_from(loop.position.epoch)
    learns = {0: "all layers learn", HEAD: "the head learns"}.get(
        lowest, f"stages {lowest + 1} to 4 and the head learn"
    )
    dtype = str(loop.learner.precision.dtype).removeprefix("torch.")
    display.say(
        f"{config.name}: {config.model} at {parts.spec.size} px on {data.description}: {len(data.train)} pictures to "
        f"learn from, {len(data.val)} to judge by, {len(data.train.labels)} classes"
    )
    display.say(
        f"recipe {config.recipe}: {recipe.epochs} epochs of {loop.steps_per_epoch} steps, {learns}, {dtype}, from "
        f"{parts.start.source}"
    )
    balanced = recipe.objective.balance != "none"
    imbalance = None if balanced else imbalance_warning(data.train.targets, data.train.labels)
    for warning in (*data.warnings, *([imbalance] if imbalance else [])):
        display.say(f"warning: {warning}")
    if resumed:
        display.say(f"going on after {loop.position.epoch} epochs and {loop.position.step} steps")


def _finish(config: TrainConfig, data: Data, folder: RunFolder, world: World, parts: Parts) -> Bundle | None:
    loop = parts.loop
    position, how = loop.position, loop.learner.precision
    parts.start.module.load_state_dict(folder.load_best(position.best_epoch))
    # The reference for every exported variant is FP32.
    judged = answers(parts.start.module, loop.normalise, loop.validation, replace(how, dtype=torch.float32), world)
    unreadable = loop.unreadable()
    world.wait()
    if not world.main:
        return None
    outcome = Outcome(
        start=parts.start,
        history=position.history,
        best_epoch=position.best_epoch,
        answers=judged,
        unreadable=unreadable,
        arithmetic=str(how.dtype).removeprefix("torch."),
    )
    return write_bundle(config, parts.network, parts.spec, data, lineage(config, data), outcome)
