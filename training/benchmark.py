"""`python -m training.benchmark --data LOCATION --model NAME --recipe NAME`: what the training loop costs.

    python -m training.benchmark --data torchvision:FashionMNIST --model efficientnet_lite0 --recipe fashion_mnist
    python -m training.benchmark --data photos --model resnet18 --weights random --steps 50 --output loop.json

Images/s of our loop against a bare one of two dozen lines, with the same network, pictures, augmentation, loader,
batches, number format and optimiser, and, where the data is a folder and every layer learns, against timm's loop with
its own reader, loader, augmentation and optimiser; and our step on one batch that lies on the device, again and again,
which is the limit that reading and augmenting can't pass. Ours also makes every step repeatable, looks for NaN, counts
and listens to Ctrl-C; all leave out validation and checkpoints. They take turns, so that a machine that slows down
slows all. Expected: 0.95 or more of the bare one. Cost: rounds times steps times four, and a round to warm up.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader

from models.catalog import architecture
from models.cli import DONE, run
from models.errors import HalftoneError
from models.files import write_atomic
from models.host import host
from training.build import Parts, build
from training.busy import Busy
from training.config import Device, Running, TrainConfig, choose_recipe, load_recipe
from training.data.source import Data, load_data
from training.data.split import stratified_sample
from training.data.views import SelectedPictures
from training.distributed import World, joined
from training.feed import default_workers
from training.learner import Position
from training.progress import Display
from training.settings import Recipe
from training.signals import StopRequest
from training.state import RunFolder
from training.timm_loop import folder, timm_epoch
from training.transfer import resolve_freeze

LIBRARIES = ("torch", "torchvision", "timm", "albumentations", "numpy", "pillow")

STILL = "no loading"

Epoch = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare the speed of the training loop with that of others."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME."""

    model: str
    """Architecture of the catalogue."""

    recipe: str = "auto"
    """File name in training/recipes/, or `auto`."""

    weights: str = "pretrained"
    """`pretrained`, `random` or a .safetensors file; from random weights every layer learns."""

    steps: int = 20
    """Batches per round and loop, at most what the data has."""

    rounds: int = 5
    """Rounds, in each of which all loops run."""

    batch: int | None = None
    """Pictures per batch, an even number; default the recipe's."""

    size: int | None = None
    """Side of the input in pixels; default the recipe's."""

    device: Device = "auto"
    """`auto` takes a GPU where there is one."""

    workers: int | None = None
    """Processes that read and augment pictures, for each loop; default one a core, at most 16."""

    output: Path | None = None
    """File for the figures as JSON, besides the table that is printed."""

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("rounds", self.rounds)):
            if value < 1:
                raise HalftoneError(f"--{name} must be 1 or more, not {value}")
        if self.batch is not None and (self.batch < 2 or self.batch % 2):
            raise HalftoneError(f"--batch must be an even number from 2, not {self.batch}")
        if self.workers is not None and self.workers < 0:
            raise HalftoneError(f"--workers must be 0 or more, not {self.workers}")


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
        loops = {"ours": our_epoch(parts), "bare": _bare(request, data, world)} | _timm(request, data, world)
        loops |= {STILL: _still(request, data, world)}
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


def our_epoch(parts: Parts) -> Epoch:
    """A function that takes our loop through all the pictures once."""
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


def _timm(request: TrainConfig, data: Data, world: World) -> dict[str, Epoch]:
    """timm's loop by its name; nothing where it can't read the data, or could not freeze what ours does."""
    recipe = request.settings
    pictures = folder(request.data, data.train.labels, recipe.augment)
    if pictures is None or recipe.transfer.freeze != "full":
        return {}
    parts = build(request, data, world)
    return {"timm": timm_epoch(parts, pictures, recipe, count=len(data.train), workers=_workers(request))}


def _still(request: TrainConfig, data: Data, world: World) -> Epoch:
    """Our steps without reading, augmenting and copying."""
    # In this process: nothing prefetches beside the others afterwards.
    parts = build(replace(request, running=replace(request.running, workers=0)), data, world)
    loop = parts.loop
    step, batches = next(iter(loop.training.epoch(0)))
    there = [(pixels.to(world.device), labels.to(world.device)) for pixels, labels in batches]
    loop.learner.begin_epoch(0)

    def epoch() -> None:
        for _ in range(loop.steps_per_epoch):
            loop.train_step(step, there)

    return epoch


def _bare(request: TrainConfig, data: Data, world: World) -> Epoch:
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
    """The loop that one would write without this project, over all the pictures: the recipe's arithmetic, no more."""
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
                answer = targets.teacher.answer(images) if targets.teacher is not None else None
            loss: Any = scaler.scale(targets.loss(logits.float(), labels, answer) / (len(images) * accumulate))
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


def _print(result: dict[str, Any]) -> None:
    machine = result["host"]
    print(f"{machine.get('gpu', machine['cpu'])}, {machine['cores']} cores, {machine['system']}, {result['date']}")
    print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    print(
        f"{result['request']['model']}, recipe {result['recipe']}, batches of {result['batch']}, "
        f"{result['precision']}, {result['pictures_per_round']} pictures a round, {result['request']['rounds']} rounds"
    )
    for name, rates in result["images_per_second"].items():
        share = result["gpu_busy"][name]
        busy = "" if share is None else f", GPU busy {share:.0%} of the time"
        print(f"{name}: {statistics.median(rates):.1f} images/s ({min(rates):.1f} to {max(rates):.1f}){busy}")
    ratios = {"a bare loop": "ratio", "timm's": "ratio_to_timm", "the step without loading": "ratio_to_limit"}
    for name, ratio in ((name, result[key]) for name, key in ratios.items()):
        if ratio is not None:
            print(f"ratio to {name}: {ratio['median']:.3f} ({ratio['least']:.3f} to {ratio['most']:.3f})")


def main(config: BenchmarkConfig) -> int:
    """Measure, print, and write where a file is named; returns the exit code."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        result = benchmark(config, progress)
    _print(result)
    if config.output is not None:
        write_atomic(config.output, (json.dumps(result, indent=1) + "\n").encode())
    return DONE


if __name__ == "__main__":
    run(main, BenchmarkConfig, prog="python -m training.benchmark")
