"""`python -m training.ablation --data DIR`: what each trick of a recipe brings, and what it costs in time.

    python -m training.ablation --data photos --model efficientnet_lite0 --output tricks
    python -m training.ablation --data photos --tricks mixup,crops,other_crops --seeds 5 --epochs 10

Trains the recipe with several seeds, and again with each trick taken out, or put in where the recipe has it off. All
runs have the same split and are evaluated on the same validation pictures; a test part is not read. Prints the paired
differences with their 95 % intervals, and writes `ablation.md` and `ablation.json` into the output folder. A repeated
command continues after a kill. Cost: seeds times (tricks + 1) runs; 16 tricks and 3 seeds are 51.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from models.catalog import architecture
from models.common.cli import DONE, INTERRUPTED, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.files import LockedError, locked, write_atomic
from models.common.host import host
from models.common.text import printable
from training.ablation.tricks import NAMES, Trick, tricks_of
from training.config.columns import Columns
from training.config.recipe import Recipe
from training.config.train import Device, Running, TrainConfig, check_workers, choose_recipe, load_recipe
from training.data.load import load_data
from training.data.pictures import Data
from training.loop.signals import StoppedError

PROG = "python -m training.ablation"
BASE = "recipe"


@dataclass(frozen=True, kw_only=True)
class AblationConfig(JsonOutput):
    """Measure what each trick of a recipe brings on your pictures, with several seeds."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME."""

    model: str = "efficientnet_lite0"
    """Architecture of the catalogue, or `timm:NAME`."""

    recipe: str = "auto"
    """File name in training/recipes/, or `auto`."""

    weights: str = "pretrained"
    """`pretrained`, `random`, or a file of weights."""

    seeds: int = 3
    """Number of seeds; one says nothing about how runs differ."""

    tricks: str = ",".join(NAMES)
    """Tricks by name, separated by commas."""

    epochs: int | None = None
    """Epochs of each run; default: the recipe's. Its warm-up shrinks with them, and a third of them or fewer go without
    policy, Mixup, CutMix and narrow crops."""

    size: int | None = None
    """Side of the input in pixels; default: that of the recipe, or of the model."""

    limit: int | None = None
    """Use at most this number of training pictures, and of validation pictures."""

    output: Path = Path("ablation")
    """Folder for the report and the results of the runs."""

    device: Device = "auto"
    """`auto` uses a GPU if there is one."""

    workers: int | None = None
    """Processes that read and augment pictures; default: one per core, at most 16."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise HalftoneError(f"--{name} must be 1 or more, not {value}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise HalftoneError(f"--size must be from 16 to 4096 pixels, not {self.size}")
        check_workers(self.workers)
        if len(set(self.names)) != len(self.names) or not self.names:
            raise HalftoneError(f"--tricks must name each trick once, not {self.tricks!r}")

    @property
    def names(self) -> list[str]:
        """Names of the tricks."""
        return [name for each in self.tricks.split(",") if (name := each.strip())]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is known before the first run."""

    name: str
    """The recipe's name."""

    recipe: Recipe
    tricks: list[Trick]
    data: Data


def plan(config: AblationConfig) -> Plan:
    """Return the runs to make.

    Raises:
        HalftoneError: the data, model, recipe or a trick can't be used.
    """
    network = architecture(config.model)
    data = load_data(config.data, columns=config.table, limit=config.limit)
    name = choose_recipe(config.recipe, pictures=len(data.train), family=network.family)
    recipe = load_recipe(name)
    recipe = recipe.resized(epochs=config.epochs or recipe.epochs, size=config.size)
    tricks = tricks_of(recipe, tuple(config.names), pretrained=config.weights != "random")
    return Plan(name=name, recipe=recipe, tricks=tricks, data=replace(data, test=None))


def ablate(config: AblationConfig, chosen: Plan, console: Console) -> dict[str, Any]:
    """Make the missing runs and return the document of the report.

    Args:
        config: the request.
        chosen: the runs.
        console: gets a line before each run.

    Raises:
        HalftoneError: as `training.loop.run.train`.
        StoppedError: the user stopped a run; its state is saved.
    """
    # Importing PyTorch takes seconds: requests that can be refused without it are refused first.
    from training.ablation.runs import Result, run_once
    from training.ablation.table import figures

    recipes = {BASE: chosen.recipe} | {trick.name: trick.recipe for trick in chosen.tricks}
    results: dict[str, list[Result]] = {name: [] for name in recipes}
    runs = [(seed, name) for seed in range(config.seeds) for name in recipes]
    started = time.monotonic()
    made = 0
    for number, (seed, name) in enumerate(runs, start=1):
        request = _request(config, chosen, recipes[name], f"{name}-{seed}", seed)
        missing = not request.output.with_suffix(".json").exists()
        if missing:
            left = _left(time.monotonic() - started, made, len(runs) - number + 1)
            console.print(f"run {number} of {len(runs)}: {_words(name, chosen)}, seed {seed}{left}", markup=False)
        results[name].append(run_once(request, chosen.data))
        made += missing
    size = chosen.recipe.transfer.size or architecture(config.model).input.size
    about = {
        "recipe_name": chosen.name,
        "model": config.model,
        "weights": config.weights,
        "data": chosen.data.description,
        "train": len(chosen.data.train),
        "val": len(chosen.data.val),
        "epochs": chosen.recipe.epochs,
        "size": size,
        "seeds": config.seeds,
        "host": host(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return about | figures(results[BASE], results, chosen.tricks)


def _request(config: AblationConfig, chosen: Plan, recipe: Recipe, name: str, seed: int) -> TrainConfig:
    return TrainConfig(
        data=config.data,
        model=config.model,
        output=config.output / "runs" / name,
        recipe=chosen.name,
        weights=config.weights,
        seed=seed,
        limit=config.limit,
        table=config.table,
        running=Running(device=config.device, workers=config.workers, log=()),
        settings=recipe,
    )


def _words(name: str, chosen: Plan) -> str:
    trick = next((trick for trick in chosen.tricks if trick.name == name), None)
    return "the recipe" if trick is None else f"{trick.name} {trick.change} ({trick.words})"


def _left(seconds: float, made: int, to_make: int) -> str:
    """Return the time left in words, from the runs that this process has made; empty before the first."""
    return f", about {seconds / made * to_make / 60:.0f} min left" if made else ""


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    output.mkdir(parents=True, exist_ok=True)
    try:
        with locked(output / ".lock"):
            yield
    except LockedError:
        raise HalftoneError(
            f"another ablation writes to {output}: wait until it ends, or choose another --output"
        ) from None


def _main(config: AblationConfig) -> int:
    chosen, console = plan(config), Console(stderr=True, soft_wrap=True, highlight=False)
    with _alone(config.output):
        try:
            document = ablate(config, chosen, console)
        except StoppedError:
            print("stopped and saved: repeat the command to continue", file=sys.stderr)
            return INTERRUPTED
        from training.ablation.table import markdown

        text = markdown(document)
        write_atomic(config.output / "ablation.json", f"{json.dumps(document, indent=1)}\n".encode())
        write_atomic(config.output / "ablation.md", f"{text}\n".encode())
    publish(document)
    print(text)
    print()
    print(printable(f"wrote {config.output / 'ablation.md'} and ablation.json"))
    return DONE


if __name__ == "__main__":
    run(_main, AblationConfig, prog=PROG, example="--data photos --model efficientnet_lite0 --tricks mixup,crops")
