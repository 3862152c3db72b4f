"""Runs of which only the head learns, on few images: the features are computed once, then the loop reads those."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial

import torch

from models.common.errors import HalftoneError
from models.spec import Architecture
from training.config.recipe import Recipe
from training.config.train import SMALL, TrainConfig
from training.data.augment import EvaluationView, build_augment
from training.data.check.labels import FOLDS
from training.data.dataset import PictureSet
from training.data.pictures import Data
from training.frozen.cached import CachedTraining, CachedValidation, FrozenHead
from training.frozen.features import VIEWS, Backbone, ManyViews, Plain, plain_features, view_features
from training.loop.build import Parts, loader_workers
from training.loop.distributed import World
from training.loop.learner import Learner
from training.loop.loop import Loop
from training.optim.optimizers import build_optimiser, parameter_groups
from training.optim.transfer import HEAD, stage_of


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What stands for the images and the network of a run."""

    head: FrozenHead
    """With the initial weights."""

    plain: Plain
    """Training images as evaluation sees them."""

    views: torch.Tensor
    """float32 (N, V, F): features of augmented views of the training images."""

    folds: int
    """Of the cross-validation; 0 for none."""


def cache_features(parts: Parts, config: TrainConfig, data: Data, world: World) -> tuple[Parts, Frozen | None]:
    """Compute the features of a run's images if only the head is trained, on few images or in folds.

    Args:
        parts: of the run, before its first step.
        config: its settings.
        data: its images.
        world: the processes that train together.

    Returns:
        The parts with a loop that reads features, and what it reads; otherwise the same parts and None.

    Raises:
        HalftoneError: `config.folds` is not possible.
        CorruptDataError: too many images can't be read.
    """
    folds = _folds(parts, config, world, pictures=len(data.train))
    if folds is None:
        return parts, None
    loop, recipe, workers = parts.loop, parts.decision.recipe, loader_workers(config, world)
    how = loop.learner.precision
    backbone = Backbone(
        module=parts.start.module.eval(), head=parts.network.head, normalise=parts.normalise, precision=how
    )
    # Held-out answers are those of FP32, as in the bundle.
    exact = replace(backbone, precision=replace(how, dtype=torch.float32))
    images = partial(PictureSet, seed=config.seed, max_corrupt_share=config.max_corrupt_share)
    many = ManyViews(augment=build_augment(recipe.augment, parts.spec), count=min(VIEWS, recipe.epochs))
    pictures = images(data.train, many)
    views = view_features(backbone, pictures, workers=workers)
    seen = parts.plain or plain_features(exact, images(data.train, EvaluationView(parts.spec)), workers=workers)
    held_out = plain_features(exact, loop.validation.pictures, workers=workers)
    head = FrozenHead(parts.start.module.get_submodule(parts.network.head), recipe.transfer.dropout)
    frozen = Frozen(head=copy.deepcopy(head), plain=seen, views=views, folds=folds)
    cached = Loop(
        head_learner(head, parts.network, recipe, loop.learner),
        recipe,
        loop.targets,
        torch.nn.Identity(),
        CachedTraining(pictures, loop.training.plan, views, torch.tensor(data.train.targets)),
        CachedValidation(
            loop.validation.pictures, held_out.features, torch.tensor(data.val.targets), batch=recipe.batch
        ),
        world=world,
        seed=config.seed,
    )
    return replace(parts, loop=cached), frozen


def head_learner(head: FrozenHead, network: Architecture, recipe: Recipe, like: Learner) -> Learner:
    """Return what trains a head, with the precision of the learner of the whole network."""
    groups = parameter_groups(head, network, recipe.optimisation, recipe.transfer, pretrained=True)
    return Learner(
        head,
        like.freezing,
        build_optimiser(groups, recipe.optimisation),
        replace(like.precision, memory_format=torch.contiguous_format),
        recipe.optimisation,
        world=like.world,
    )


def _folds(parts: Parts, config: TrainConfig, world: World, *, pictures: int) -> int | None:
    """Return the number of folds; None if the loop has to read images."""
    objective = parts.decision.recipe.objective
    alone = world.size == 1 and not objective.mixes and objective.teacher is None
    if not (alone and _only_the_head_learns(parts)):
        if config.folds:
            raise HalftoneError(
                f"--folds {config.folds} needs a frozen backbone, unmixed pictures and one process: add --freeze head "
                "--mixup 0 --cutmix 0, and use neither --teacher nor torchrun; or omit --folds"
            )
        return None
    if config.folds:
        if 2 * config.folds > pictures:
            raise HalftoneError(
                f"--folds {config.folds} needs {2 * config.folds} training pictures, and there are {pictures}: lower it"
            )
        return config.folds
    if pictures >= SMALL:
        return None
    return 0 if config.folds == 0 or pictures < 2 * FOLDS else FOLDS


def _only_the_head_learns(parts: Parts) -> bool:
    """Return True if the classifier is all that is trained in every epoch."""
    recipe, network = parts.decision.recipe, parts.network
    names = [name for name, _ in parts.start.module.named_parameters() if stage_of(network, name) == HEAD]
    lowest = parts.loop.learner.freezing.lowest_trained(recipe.epochs - 1)
    return lowest == HEAD and all(name.startswith(f"{network.head}.") for name in names)
