"""Construction of a run's parts: network, optimiser, batches and training targets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm

from models.bundle.store import open_bundle
from models.catalog import architecture
from models.common.errors import HalftoneError
from models.graph import Normalise
from models.spec import Architecture, InputSpec
from models.weights import Start, start, start_from
from training.config.defaults import HEAD_BELOW, input_spec, resolve_transfer
from training.config.recipe import Objective, Recipe
from training.config.train import TrainConfig
from training.data.augment import EvaluationView, build_augment
from training.data.balance import Balancing, balancing
from training.data.batches.loader import TrainingFeed, ValidationFeed, default_workers
from training.data.batches.sampling import Plan
from training.data.dataset import PictureSet
from training.data.pictures import Data, Pictures
from training.data.split import stratified_sample
from training.data.subsets import SelectedPictures
from training.frozen.features import Backbone, Plain, plain_features
from training.frozen.likeness import PICTURES, Likeness, measure_likeness
from training.loop.distributed import World
from training.loop.learner import Learner
from training.loop.loop import Loop
from training.optim.objective import Mixing, Targets, load_teacher
from training.optim.optimizers import build_optimiser, parameter_groups
from training.optim.precision import precision
from training.optim.transfer import HEAD, freezing


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What learns in a run, and why."""

    recipe: Recipe
    """With `freeze` resolved."""

    likeness: Likeness | None
    """What `auto` was decided by; None if nothing was measured."""

    def to_dict(self) -> dict[str, Any]:
        """Return the decision for the manifest, JSON-ready."""
        measured = None
        if self.likeness is not None:
            extra = {"odds_ratio": self.likeness.odds_ratio, "similar": self.likeness.similar}
            measured = asdict(self.likeness) | extra
        return {
            "freeze": self.recipe.transfer.freeze,
            "backbone_lr": self.recipe.optimisation.backbone_lr,
            "likeness": measured,
        }

    def __str__(self) -> str:
        """Return the measured likeness and how to decide otherwise; empty if nothing was measured."""
        if self.likeness is None:
            return ""
        alike = "like" if self.likeness.similar else "unlike"
        raised = "" if self.likeness.similar else f", at a backbone rate of {self.recipe.optimisation.backbone_lr:g}"
        return (
            f"these pictures are {alike} those of the pretraining ({self.likeness}): --freeze auto takes "
            f"{self.recipe.transfer.freeze}{raised}; --similar yes|no or --freeze decides otherwise"
        )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts of a run before its first step."""

    network: Architecture
    spec: InputSpec
    start: Start
    loop: Loop

    decision: Decision

    normalise: Normalise
    """Of images for the network, on its device."""

    plain: Plain | None
    """Features of all training images by the initial network, if something was decided by them."""

    warnings: tuple[str, ...] = ()
    """For the user, about the data and the settings together."""


def build(config: TrainConfig, data: Data, world: World) -> Parts:
    """Build the parts of a run with its initial weights.

    Args:
        config: resolved settings.
        data: training and validation images.
        world: the processes that train together.

    Raises:
        HalftoneError: the model, its weights, the teacher, the precision or the batch size can't be used.
    """
    recipe, network, labels = config.settings, architecture(config.model), data.train.labels
    origin = open_bundle(config.from_) if config.from_ else None
    spec = input_spec(origin.manifest.input if origin else network.input, recipe.transfer)
    balance = balancing(recipe.objective.balance, data.train.targets, labels)
    rates = {"drop_rate": recipe.transfer.dropout, "drop_path_rate": recipe.transfer.drop_path}
    if origin:
        initial = start_from(origin, size=spec.size, **rates)
    else:
        initial = start(network, config.weights, classes=len(labels), size=spec.size, seed=config.seed, **rates)
    # Those of a file may have been trained with another mean and standard deviation than the architecture's.
    spec = replace(spec, mean=initial.input.mean, std=initial.input.std)
    decision, plain = _decide(config, network, initial, spec, data, world)
    recipe = decision.recipe
    config = replace(config, settings=recipe)
    learner = _learner(config, network, initial, world, pictures=len(data.train))
    training, validation = _feeds(config, data, spec, balance, world)
    normalise = Normalise(spec).to(world.device)
    loop = Loop(
        learner,
        recipe,
        _targets(recipe.objective, labels, spec, balance, world.device, seed=config.seed),
        normalise,
        training,
        validation,
        world=world,
        seed=config.seed,
    )
    return Parts(
        network=network,
        spec=spec,
        start=replace(initial, module=learner.module),
        loop=loop,
        decision=decision,
        normalise=normalise,
        plain=plain,
        warnings=(balance.warning,) if balance.warning else (),
    )


def _decide(
    config: TrainConfig, network: Architecture, initial: Start, spec: InputSpec, data: Data, world: World
) -> tuple[Decision, Plain | None]:
    """Resolve `freeze`, after measuring the likeness of the images if that decides it.

    Returns:
        The decision, and the features that it needed if they are of all training images.
    """
    recipe, pictures = config.settings, len(data.train)
    similar, likeness, plain = recipe.transfer.similar != "no", None, None
    if recipe.transfer.freeze == "auto" and recipe.transfer.similar == "auto" and initial.pretrained:
        everything = pictures < HEAD_BELOW and world.size == 1
        plain = _plain_features(config, network, initial, spec, data.train, world, everything=everything)
        likeness = measure_likeness(plain)
        plain = plain if everything else None
        # All processes take the same decision, whatever their rounding.
        (similar,) = world.any(likeness.similar)
    resolved = resolve_transfer(recipe, network, pictures=pictures, pretrained=initial.pretrained, similar=similar)
    return Decision(recipe=resolved, likeness=likeness), plain


def _plain_features(
    config: TrainConfig,
    network: Architecture,
    initial: Start,
    spec: InputSpec,
    pictures: Pictures,
    world: World,
    *,
    everything: bool,
) -> Plain:
    """Return the initial network's features of all images, or of a sample."""
    how = precision("off", initial.module, world.device, backbone_trained=False)
    backbone = Backbone(
        module=how.place(initial.module), head=network.head, normalise=Normalise(spec).to(world.device), precision=how
    )
    share = config.max_corrupt_share
    if not everything:
        pictures = SelectedPictures(pictures, stratified_sample(pictures, min(PICTURES, len(pictures)), seed=0))
        # By chance, a sample may have a larger share than all images.
        share = 1.0
    seen = PictureSet(pictures, EvaluationView(spec), seed=config.seed, max_corrupt_share=share)
    return plain_features(backbone, seen, workers=loader_workers(config, world))


def _learner(config: TrainConfig, network: Architecture, initial: Start, world: World, *, pictures: int) -> Learner:
    recipe = config.settings
    layers = freezing(network, recipe.transfer, pictures=pictures, pretrained=initial.pretrained)
    backbone_trained = layers.lowest_trained(recipe.epochs - 1) < HEAD
    how = precision(recipe.amp, initial.module, world.device, backbone_trained=backbone_trained)
    module = _synchronised(how.place(initial.module), world)
    groups = parameter_groups(module, network, recipe.optimisation, recipe.transfer, pretrained=initial.pretrained)
    optimiser = build_optimiser(groups, recipe.optimisation)
    return Learner(module, layers, optimiser, how, recipe.optimisation, compiled=config.running.compile, world=world)


def _synchronised(module: torch.nn.Module, world: World) -> torch.nn.Module:
    """On several GPUs, replace batch norms by ones that see the whole batch instead of one GPU's part."""
    return synchronised(module) if world.size > 1 and world.device.type == "cuda" else module


def synchronised(module: torch.nn.Module) -> torch.nn.Module:
    """Replace every batch norm by one that averages over all processes."""
    # Not torch's own conversion: it drops the activation that timm keeps inside its batch norms.
    convert: Any = convert_sync_batchnorm
    converted: torch.nn.Module = convert(module)
    return converted


def _targets(
    objective: Objective,
    labels: tuple[str, ...],
    spec: InputSpec,
    balance: Balancing,
    device: torch.device,
    *,
    seed: int,
) -> Targets:
    weights = None if balance.loss_weights is None else torch.as_tensor(balance.loss_weights).to(device)
    teacher = None
    if objective.teacher is not None:
        teacher = load_teacher(objective.teacher, labels, spec, objective).to(device)
    return Targets(
        smoothing=objective.smoothing,
        weights=weights,
        mixing=Mixing(objective, len(labels), seed) if objective.mixes else None,
        teacher=teacher,
        teacher_share=objective.teacher_share,
    )


def _feeds(
    config: TrainConfig, data: Data, spec: InputSpec, balance: Balancing, world: World
) -> tuple[TrainingFeed, ValidationFeed]:
    recipe = config.settings
    if len(data.val) < world.size:
        raise HalftoneError(f"{len(data.val)} validation pictures are too few for {world.size} processes")
    plan = Plan(
        pictures=len(data.train),
        batch=recipe.batch,
        accumulate=recipe.optimisation.accumulate,
        rank=world.rank,
        world=world.size,
        seed=config.seed,
        pairs=recipe.objective.mixes,
        weights=balance.sampling_weights,
    )
    _check_batches(plan)
    if data.test is not None and len(data.test) < world.size:
        raise HalftoneError(f"{len(data.test)} test pictures are too few for {world.size} processes")
    workers, pin = loader_workers(config, world), world.device.type == "cuda"
    view = build_augment(recipe.augment, spec)
    pictures = PictureSet(data.train, view, seed=config.seed, max_corrupt_share=config.max_corrupt_share)
    training = TrainingFeed(pictures, plan, workers=workers, pin=pin)
    return training, held_out_feed(config, data.val, spec, world)


def held_out_feed(config: TrainConfig, pictures: Pictures, spec: InputSpec, world: World) -> ValidationFeed:
    """Return this process's share of the images of a held-out part, as the network sees them in serving."""
    return ValidationFeed(
        PictureSet(pictures, EvaluationView(spec), seed=config.seed, max_corrupt_share=config.max_corrupt_share),
        batch=math.ceil(config.settings.batch / world.size),
        rank=world.rank,
        world=world.size,
        workers=loader_workers(config, world),
        pin=world.device.type == "cuda",
    )


def loader_workers(config: TrainConfig, world: World) -> int:
    """Return the number of loader processes of this process."""
    return default_workers(world.size) if config.running.workers is None else config.running.workers


def _check_batches(plan: Plan) -> None:
    """Refuse batches of a single image, from which a batch norm after pooling can't compute a variance."""
    if plan.least >= 2:
        return
    # No batch is smaller than half the largest, less the rounding of pairs.
    enough = 4 * plan.world
    fix = (
        f"use --batch {enough} or more" if plan.pictures >= 2 * plan.world else "use fewer processes, or more pictures"
    )
    raise HalftoneError(
        f"--batch {plan.batch} splits {plan.pictures} training pictures so that a batch of one of the {plan.world} "
        f"processes has {plan.least}, but it needs two: {fix}"
    )
