"""Stratified cross-validation of a head on frozen features; images that differ little are in one fold.

Every training image is answered by a head that was trained on the other folds, with the run's settings, to the last
epoch. So no answer had a part in its own training, nor in a choice.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.common.statistics import rate
from training.data.check.doublets import grouped, near_pairs
from training.data.check.features import principal_components
from training.data.check.labels import stratified_folds
from training.evaluation.metrics import majority
from training.frozen.cached import CachedTraining
from training.frozen.features import Plain
from training.loop.build import Parts
from training.loop.frozen.cache import Frozen, head_learner
from training.loop.loop import Loop

Indices = npt.NDArray[np.int64]


def cross_validate(parts: Parts, frozen: Frozen, labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the cross-validated accuracy for the manifest, JSON-ready.

    Args:
        parts: of the run; its own head is not changed.
        frozen: features of the training images.
        labels: class names.

    Returns:
        `cv_folds`; `cv_pictures`, the readable images; `cv_groups`, those that differ; `cv_top1` and
        `cv_top1_interval`, 95 %, for which images that differ little count as one; `cv_majority`. Empty without folds,
        or if no two images differ.
    """
    readable = np.flatnonzero(frozen.plain.readable)
    groups, targets = together(frozen.plain)[readable], frozen.plain.targets[readable]
    count = len(np.unique(groups))
    if not frozen.folds or count < 2:
        return {}
    folds = stratified_folds(targets, groups, seed=parts.loop.seed, folds=min(frozen.folds, count))
    right = np.zeros(len(readable), dtype=bool)
    for fold in np.unique(folds):
        held_out = folds == fold
        head = trained_head(parts, frozen, readable[~held_out])
        right[held_out] = right_answers(head, frozen.plain, readable[held_out])
    share = float(right.mean())
    interval = rate(share * count, count)
    return {
        "cv_folds": frozen.folds,
        "cv_pictures": len(readable),
        "cv_groups": count,
        "cv_top1": share,
        "cv_top1_interval": [interval["low"], interval["high"]],
        "cv_majority": majority(targets, labels),
    }


def together(plain: Plain) -> Indices:
    """Return a number for each image, int64 (N,), equal for those that differ little."""
    if not len(plain.targets):
        return np.zeros(0, dtype=np.int64)
    components = principal_components(plain.features.flatten(1).clone())
    return grouped(len(plain.targets), near_pairs(plain.thumbnails, components, known=()))


def trained_head(parts: Parts, frozen: Frozen, chosen: Indices) -> torch.nn.Module:
    """Train a head on some of the images, to the last epoch, and return it in evaluation mode.

    Args:
        parts: of the run; its own head is not changed.
        frozen: features of the images.
        chosen: int64 (M,), indices of those to train on.
    """
    loop, targets = parts.loop, torch.tensor(frozen.plain.targets)
    weights = loop.training.plan.weights
    if weights is not None:
        weights = weights[chosen] / weights[chosen].sum()
    plan = replace(loop.training.plan, pictures=len(chosen), weights=weights)
    fold = Loop(
        head_learner(copy.deepcopy(frozen.head), parts.network, loop.recipe, loop.learner),
        loop.recipe,
        loop.targets,
        torch.nn.Identity(),
        CachedTraining(loop.training.pictures, plan, frozen.views[chosen], targets[chosen]),
        loop.validation,
        world=loop.world,
        seed=loop.seed,
    )
    for epoch in range(loop.recipe.epochs):
        fold.learner.begin_epoch(epoch)
        for step, batches in fold.training.epoch(epoch):
            fold.train_step(step, batches)
            fold.position.step += 1
        fold.position.epoch, fold.position.step = epoch + 1, 0
    return fold.learner.averaged().eval()


@torch.no_grad()
def right_answers(head: torch.nn.Module, plain: Plain, chosen: Indices) -> npt.NDArray[np.bool_]:
    """Return whether a head is right, bool (M,), on the images with the indices int64 (M,)."""
    device = next(head.parameters()).device
    answers = head(plain.features[chosen].to(device)).argmax(dim=1).cpu().numpy()
    return np.asarray(answers == plain.targets[chosen], dtype=bool)
