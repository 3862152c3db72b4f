"""Settings of the benchmark, and the training run and images that they describe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from models.catalog import architecture
from models.common.errors import HalftoneError
from training.config.columns import Columns
from training.config.defaults import resolve_freeze
from training.config.recipe import Recipe
from training.config.train import Device, Running, TrainConfig, check_workers, choose_recipe, load_recipe
from training.data.load import load_data
from training.data.pictures import Data
from training.data.split import stratified_sample
from training.data.subsets import SelectedPictures


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare the speed of the training loop with that of other loops."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME."""

    model: str
    """Architecture of the catalogue, or `timm:NAME`."""

    recipe: str = "auto"
    """File name in training/recipes/, or `auto`."""

    weights: str = "pretrained"
    """`pretrained`, `random`, or a .safetensors, .pth or .ckpt file; from random weights every layer is trained."""

    steps: int = 20
    """Batches per round and loop, limited by the data."""

    rounds: int = 5
    """Rounds; every loop runs once in each."""

    batch: int | None = None
    """Pictures per batch, an even number; default: that of the recipe."""

    size: int | None = None
    """Side of the input in pixels; default: that of the recipe."""

    device: Device = "auto"
    """`auto` uses a GPU if there is one."""

    workers: int | None = None
    """Processes per loop that read and augment pictures; default: one per core, at most 16."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    output: Path | None = None
    """JSON file for the results, in addition to the printed ones."""

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("rounds", self.rounds)):
            if value < 1:
                raise HalftoneError(f"--{name} must be 1 or more, not {value}")
        if self.batch is not None and (self.batch < 2 or self.batch % 2):
            raise HalftoneError(f"--batch must be an even number from 2, not {self.batch}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise HalftoneError(f"--size must be from 16 to 4096 pixels, not {self.size}")
        check_workers(self.workers)


def resolve(config: BenchmarkConfig) -> tuple[TrainConfig, Data]:
    """Return the run to measure, and whole batches of its images.

    Raises:
        HalftoneError: the data, model or recipe can't be used.
    """
    data, network = load_data(config.data, columns=config.table), architecture(config.model)
    name = choose_recipe(config.recipe, pictures=len(data.train), family=network.family)
    recipe = load_recipe(name)
    # The frozen layers depend on the number of all images, not on that of a round.
    freeze = resolve_freeze(recipe.transfer.freeze, pictures=len(data.train), pretrained=config.weights != "random")
    transfer = replace(recipe.transfer, freeze=freeze, size=config.size or recipe.transfer.size)
    recipe = replace(recipe, batch=config.batch or recipe.batch, transfer=transfer)
    request = TrainConfig(
        data=config.data,
        table=config.table,
        model=config.model,
        output=Path("benchmark"),
        recipe=name,
        weights=config.weights,
        running=Running(device=config.device, workers=config.workers, log=()),
        settings=recipe,
    )
    return request, _whole_batches(data, recipe, config.steps)


def _whole_batches(data: Data, recipe: Recipe, steps: int) -> Data:
    """Select as many images as fill all batches of every optimiser step."""
    step = recipe.batch * recipe.optimisation.accumulate
    count = min(steps * recipe.batch, len(data.train)) // step * step
    if count < max(step, len(data.train.labels)):
        raise HalftoneError(
            f"{min(steps * recipe.batch, len(data.train))} pictures are too few for a batch of {step} and "
            f"{len(data.train.labels)} classes: lower --batch, raise --steps, or use more data"
        )
    return replace(data, train=SelectedPictures(data.train, stratified_sample(data.train, count, seed=0)))
