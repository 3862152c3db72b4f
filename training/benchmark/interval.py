"""`python -m training.benchmark.interval --data LOCATION`: how often the cross-validated interval is true.

    python -m training.benchmark.interval --data torchvision:FashionMNIST --size 64

Draws subsets of the pictures again and again. On each, training's cross-validation promises an interval. A head that is
trained on the whole subset is evaluated on all other pictures: that is the true accuracy. Of 20 intervals of 95 %, 18
or more hold it with a probability of 92 %. The frozen features are computed once, without augmentation. 20 subsets of
1,000 of 20,000 pictures at 64 px take about three minutes on two cores. Exit code 1 if fewer than nine in ten hold it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from models.common.cli import ANSWER_IS_NO, DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from training.config.columns import Columns
from training.config.recipe import Recipe, Transfer
from training.config.train import Device, Running, TrainConfig, check_workers, load_recipe
from training.data.load import load_data
from training.data.pictures import Data, Pictures
from training.data.split import stratified_sample
from training.data.subsets import JoinedPictures, SelectedPictures

PROG = "python -m training.benchmark.interval"
LEAST = 0.9
"""Share of the intervals that must hold the true accuracy."""


@dataclass(frozen=True, kw_only=True)
class IntervalConfig(JsonOutput):
    """Compare the interval of the cross-validated accuracy with the accuracy on many other pictures."""

    data: str
    """As for training; training and validation pictures are taken together."""

    model: str = "efficientnet_lite0"
    """Architecture of the catalogue with pretrained weights."""

    subsets: int = 20
    """Number of subsets."""

    pictures: int = 1000
    """Pictures of a subset."""

    limit: int = 20_000
    """Most pictures to read, from which the subsets are drawn."""

    size: int | None = None
    """Side of the input in pixels; default: the model's."""

    device: Device = "auto"
    """`auto` uses a GPU if there is one."""

    workers: int | None = None
    """Processes that read pictures; default: one per core, at most 16."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    output: Path | None = None
    """JSON file for the results, in addition to the printed ones."""

    def __post_init__(self) -> None:
        if self.subsets < 1 or self.pictures < 10:
            raise HalftoneError("--subsets must be 1 or more, and --pictures 10 or more")
        if self.limit <= self.pictures:
            raise HalftoneError(f"--limit must exceed --pictures {self.pictures}, not {self.limit}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise HalftoneError(f"--size must be from 16 to 4096 pixels, not {self.size}")
        check_workers(self.workers)


def _request(config: IntervalConfig) -> TrainConfig:
    recipe: Recipe = load_recipe("small")
    transfer: Transfer = replace(recipe.transfer, freeze="head", size=config.size)
    return TrainConfig(
        data=config.data,
        model=config.model,
        output=Path("interval"),
        recipe="small",
        table=config.table,
        running=Running(device=config.device, workers=config.workers, log=()),
        settings=replace(recipe, transfer=transfer),
    )


def _pictures(config: IntervalConfig) -> Pictures:
    data = load_data(config.data, columns=config.table)
    pictures: Pictures = JoinedPictures(data.train, data.val)
    if len(pictures) <= config.pictures:
        raise HalftoneError(
            f"--pictures {config.pictures} leaves none of the {len(pictures)} pictures to evaluate on: lower it"
        )
    if len(pictures) <= config.limit:
        return pictures
    return SelectedPictures(pictures, stratified_sample(pictures, config.limit, seed=0))


def _measure(config: IntervalConfig, pictures: Pictures) -> list[dict[str, float]]:
    """Return the figures of each subset: `promised`, `low`, `high`, `true`."""
    import numpy as np

    from training.data.check.labels import FOLDS
    from training.frozen.cached import FrozenHead
    from training.frozen.features import Backbone, plain_features
    from training.loop.build import build, held_out_feed, loader_workers
    from training.loop.distributed import joined
    from training.loop.frozen.cache import Frozen, head_learner
    from training.loop.frozen.folds import cross_validate, right_answers, trained_head

    request, found = _request(config), []
    with joined(config.device) as world:
        data = Data(train=pictures, val=pictures, description=config.data, own_split=False)
        parts = build(request, data, world)
        how, module = parts.loop.learner.precision, parts.start.module
        backbone = Backbone(module=module, head=parts.network.head, normalise=parts.normalise, precision=how)
        seen = held_out_feed(request, pictures, parts.spec, world).pictures
        plain = plain_features(backbone, seen, workers=loader_workers(request, world))
        head = FrozenHead(module.get_submodule(parts.network.head), request.settings.transfer.dropout)
        parts.loop.learner = head_learner(head, parts.network, request.settings, parts.loop.learner)
        generator = np.random.default_rng(0)
        for _ in range(config.subsets):
            order = generator.permutation(len(pictures))
            subset, others = np.sort(order[: config.pictures]), order[config.pictures :]
            few = plain.of(subset)
            frozen = Frozen(head=head, plain=few, views=few.features[:, None], folds=FOLDS)
            promise = cross_validate(parts, frozen, pictures.labels)
            whole = trained_head(parts, frozen, np.arange(len(subset)))
            low, high = promise["cv_top1_interval"]
            true = float(right_answers(whole, plain, others).mean())
            found.append({"promised": promise["cv_top1"], "low": low, "high": high, "true": true})
    return found


def _main(config: IntervalConfig) -> int:
    pictures = _pictures(config)
    found = _measure(config, pictures)
    held = sum(each["low"] <= each["true"] <= each["high"] for each in found)
    document: dict[str, Any] = {
        "data": config.data,
        "model": config.model,
        "pictures": config.pictures,
        "others": len(pictures) - config.pictures,
        "held": held,
        "subsets": found,
    }
    publish(document)
    for each in found:
        print(f"{each['promised']:.1%} ({each['low']:.1%} to {each['high']:.1%}), true {each['true']:.2%}")
    print(
        f"{held} of {len(found)} intervals from {config.pictures:,} pictures hold the accuracy on "
        f"{document['others']:,} others"
    )
    if config.output is not None:
        write_atomic(config.output, f"{json.dumps(document, indent=1)}\n".encode())
    return DONE if held >= LEAST * len(found) else ANSWER_IS_NO


if __name__ == "__main__":
    run(_main, IntervalConfig, prog=PROG, example="--data torchvision:FashionMNIST --size 64")
