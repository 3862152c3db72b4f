"""Which run a comparison measures, and on which pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.catalog import architecture
from models.errors import HalftoneError
from training.benchmark.config import BenchmarkConfig
from training.config import Running, TrainConfig, choose_recipe, load_recipe
from training.data.source import Data, load_data
from training.data.split import stratified_sample
from training.data.views import SelectedPictures
from training.defaults import resolve_freeze
from training.settings import Recipe


def requested(config: BenchmarkConfig) -> tuple[TrainConfig, Data]:
    """The run that is measured, and whole batches of its pictures.

    Raises:
        HalftoneError: the data, model or recipe can't be used.
    """
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
