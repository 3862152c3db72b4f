"""A request for training with everything decided, or refused, before PyTorch is loaded."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

from models.bundle.manifest import FILE_NAME
from models.catalog import architecture
from models.common.errors import HalftoneError
from training.config.train import TrainConfig, choose_recipe, from_json, with_recipe
from training.data.load import load_data
from training.data.pictures import Data
from training.loop.checkpoints import RunFolder

PROG = "python -m training"


def requested(config: TrainConfig) -> tuple[TrainConfig, Data]:
    """The request with everything decided: the recorded settings of an unfinished run, or the recipe's.

    Raises:
        HalftoneError: nothing to resume, or the data, model or recipe can't be used.
    """
    check_output(config)
    if config.resume:
        config = _recorded(config)
        return config, _load(config)
    network, data = architecture(config.model), _load(config)
    recipe = choose_recipe(config.recipe, pictures=len(data.train), family=network.family)
    return with_recipe(config, recipe, sys.argv[1:], prog=PROG), data


def _load(config: TrainConfig) -> Data:
    return load_data(config.data, val_share=config.val_share, seed=config.seed, limit=config.limit)


def _recorded(config: TrainConfig) -> TrainConfig:
    plain = TrainConfig(output=config.output, resume=True, running=config.running)
    changed = [field.name for field in fields(TrainConfig) if getattr(config, field.name) != getattr(plain, field.name)]
    if changed:
        raise HalftoneError(
            f"--resume goes on with the settings that the run was started with, and {', '.join(changed)} can't be "
            "changed now: leave those flags out, or start anew with --restart"
        )
    unfinished = RunFolder(config.output).identity()
    if unfinished is None:
        raise HalftoneError(f"{config.output} has no unfinished run to resume: start one with --data and --model")
    values = unfinished["config"] | {"output": str(config.output)}
    recorded = from_json(TrainConfig, values)
    return TrainConfig(**{**vars(recorded), "running": config.running})


def check_output(config: TrainConfig) -> None:
    """Refuse an output folder that holds something, unless it is the bundle of a run killed just before its end.

    Raises:
        HalftoneError: it does.
    """
    output = config.output
    empty = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not empty and (config.restart or not complete(output)):
        raise HalftoneError(f"{output} holds something already: remove it to train it anew, or choose another --output")


def complete(output: Path) -> bool:
    """Whether the bundle is made, while what only its training needed has not been removed yet."""
    return (output / FILE_NAME).is_file() and RunFolder(output).identity() is not None
