"""What a run is made of: the network with what learns in it, the batches, and what it is taught."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm

from models.catalog import architecture
from models.common.errors import HalftoneError
from models.graph import Normalise
from models.spec import Architecture, InputSpec
from models.weights import Start, start
from training.config.defaults import input_spec
from training.config.train import TrainConfig
from training.data.augment import EvaluationView, build_augment
from training.data.balance import class_weights, sampling_weights
from training.data.dataset import PictureSet
from training.data.loader import TrainingFeed, ValidationFeed, default_workers
from training.data.pictures import Data
from training.data.sampling import Plan
from training.loop.distributed import World
from training.loop.learner import Learner
from training.loop.loop import Loop
from training.optim.objective import Mixing, Targets, load_teacher
from training.optim.optimizers import build_optimiser, parameter_groups
from training.optim.precision import precision
from training.optim.transfer import HEAD, freezing


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of."""

    network: Architecture
    spec: InputSpec
    start: Start
    loop: Loop


def build(config: TrainConfig, data: Data, world: World) -> Parts:
    """Everything that a run needs, at its beginning.

    Args:
        config: resolved settings.
        data: the pictures.
        world: the processes that train together.

    Raises:
        HalftoneError: the model, its weights, the teacher or the precision can't be had.
    """
    recipe, network = config.settings, architecture(config.model)
    transfer, classes = recipe.transfer, len(data.train.labels)
    spec = input_spec(network, transfer)
    began = start(
        network,
        config.weights,
        classes=classes,
        size=spec.size,
        seed=config.seed,
        drop_rate=transfer.dropout,
        drop_path_rate=transfer.drop_path,
    )
    layers = freezing(network, transfer, pictures=len(data.train), pretrained=began.pretrained)
    learns = layers.learning_from(recipe.epochs - 1) < HEAD
    how = precision(recipe.amp, began.module, world.device, backbone_learns=learns)
    module = _synchronised(how.place(began.module), world)
    groups = parameter_groups(module, network, recipe.optimisation, transfer, pretrained=began.pretrained)
    optimiser = build_optimiser(groups, recipe.optimisation)
    learner = Learner(module, layers, optimiser, how, recipe.optimisation, compiled=config.running.compile, world=world)
    training, validation = _feeds(config, data, spec, world)
    loop = Loop(
        learner,
        recipe,
        _targets(config, data, spec, world),
        Normalise(spec).to(world.device),
        training,
        validation,
        world=world,
        seed=config.seed,
    )
    return Parts(network=network, spec=spec, start=replace(began, module=module), loop=loop)


def _synchronised(module: torch.nn.Module, world: World) -> torch.nn.Module:
    """On several GPUs, batch norms that see the whole batch instead of one GPU's part."""
    # Not torch's own conversion: it drops the activation that timm keeps inside its batch norms.
    return synchronised(module) if world.size > 1 and world.device.type == "cuda" else module


def synchronised(module: torch.nn.Module) -> torch.nn.Module:
    """The network with every batch norm replaced by one that averages over all processes."""
    convert: Any = convert_sync_batchnorm
    converted: torch.nn.Module = convert(module)
    return converted


def _targets(config: TrainConfig, data: Data, spec: InputSpec, world: World) -> Targets:
    objective, labels = config.settings.objective, data.train.labels
    weights = None
    if objective.balance == "weights":
        weights = torch.as_tensor(class_weights(data.train.targets, len(labels))).float().to(world.device)
    teacher = None
    if objective.teacher is not None:
        teacher = load_teacher(objective.teacher, labels, spec, objective).to(world.device)
    return Targets(
        smoothing=objective.smoothing,
        weights=weights,
        mixing=Mixing(objective, len(labels), config.seed) if objective.mixes else None,
        teacher=teacher,
        teacher_share=objective.teacher_share,
    )


def _feeds(config: TrainConfig, data: Data, spec: InputSpec, world: World) -> tuple[TrainingFeed, ValidationFeed]:
    recipe, objective = config.settings, config.settings.objective
    if len(data.val) < world.size:
        raise HalftoneError(f"{len(data.val)} pictures to judge by are too few for {world.size} processes")
    weights = sampling_weights(data.train.targets, len(data.train.labels)) if objective.balance == "sampler" else None
    plan = Plan(
        pictures=len(data.train),
        batch=recipe.batch,
        accumulate=recipe.optimisation.accumulate,
        rank=world.rank,
        world=world.size,
        seed=config.seed,
        pairs=objective.mixes,
        weights=weights,
    )
    _check_batches(plan)
    workers = default_workers(world.size) if config.running.workers is None else config.running.workers
    pin = world.device.type == "cuda"
    view = build_augment(recipe.augment, spec)
    pictures = PictureSet(data.train, view, seed=config.seed, max_corrupt_share=config.max_corrupt_share)
    held_out = PictureSet(data.val, EvaluationView(spec), seed=config.seed, max_corrupt_share=config.max_corrupt_share)
    training = TrainingFeed(pictures, plan, workers=workers, pin=pin)
    batch = math.ceil(recipe.batch / world.size)
    validation = ValidationFeed(held_out, batch=batch, rank=world.rank, world=world.size, workers=workers, pin=pin)
    return training, validation


def _check_batches(plan: Plan) -> None:
    """Refuse single pictures: batch norm can't learn from one where it sees one value of it, as after pooling."""
    if plan.least >= 2:
        return
    # No batch is smaller than half the largest, less the rounding of pairs.
    enough = 4 * plan.world
    fix = (
        f"use --batch {enough} or more" if plan.pictures >= 2 * plan.world else "use fewer processes, or more pictures"
    )
    raise HalftoneError(
        f"--batch {plan.batch} deals {plan.pictures} training pictures so that one of {plan.world} processes has "
        f"{plan.least} at once, and two are needed: {fix}"
    )
