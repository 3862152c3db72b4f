"""timm's training loop for comparison: its reader, loader, augmentation, mixing, loss, optimiser and weight average.

timm's package contains the parts, but not the script train.py that combines them. This module combines them as that
script does for one device (Wightman, "PyTorch Image Models", train.py), with the settings of a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.clip_grad import dispatch_clip_grad
from timm.utils.cuda import NativeScaler
from timm.utils.model_ema import ModelEmaV3

from models.spec import InputSpec
from training.config.augment import AugmentConfig
from training.config.recipe import Objective, Recipe
from training.loop.build import Parts


def folder(data: str, labels: tuple[str, ...], augment: AugmentConfig) -> Path | None:
    """Return the folder of class folders that timm reads as we do.

    Args:
        data: the location of the request.
        labels: our classes of this data.
        augment: the augmentation; timm has only RandAugment of its policies.

    Returns:
        None if timm would find other classes, or does not have the policy.
    """
    root = Path(data).expanduser()
    root = root / "train" if (root / "train").is_dir() else root
    if not root.is_dir() or augment.policy not in ("none", "randaugment"):
        return None
    classes = [path for path in root.iterdir() if path.is_dir()]
    nested = any(inner.is_dir() for path in classes for inner in path.iterdir())
    return None if nested or sorted(path.name for path in classes) != sorted(labels) else root


def timm_epoch(parts: Parts, pictures: Path, recipe: Recipe, *, count: int, workers: int) -> Callable[[], None]:
    """Return a function that runs timm's loop over some of the images once.

    Args:
        parts: of a run, for the network, the device and the number format.
        pictures: folder with one folder per class.
        recipe: the settings; those that only our loop has (frozen layers, rates by layer) are ignored.
        count: number of images, in whole batches.
        workers: loader processes.
    """
    learner = parts.loop.learner
    module, precision = learner.module, learner.precision
    optimisation, objective = recipe.optimisation, recipe.objective
    loader = _loader(pictures, recipe, parts.spec, precision.device, count=count, workers=workers)
    mixup = _mixup(objective, classes=len(parts.loop.training.pictures.pictures.labels))
    criterion = _criterion(objective).to(precision.device)
    optimiser = create_optimizer_v2(
        module,
        opt=optimisation.optimiser,
        lr=optimisation.head_lr,
        weight_decay=optimisation.weight_decay,
        momentum=optimisation.momentum,
    )
    scaler: Any = NativeScaler() if precision.dtype == torch.float16 else None  # type: ignore[no-untyped-call]
    ema = ModelEmaV3(module, decay=optimisation.ema, use_warmup=True) if optimisation.ema else None
    clip, accumulate = optimisation.clip, optimisation.accumulate

    def step(images: torch.Tensor, labels: torch.Tensor, *, update: bool) -> None:
        with precision.autocast():
            loss: Any = criterion(module(images), labels) / accumulate
        if scaler is not None:
            scaler(loss, optimiser, clip_grad=clip, parameters=module.parameters(), need_update=update)
        else:
            loss.backward()
            if update:
                if clip is not None:
                    dispatch_clip_grad(module.parameters(), clip)
                optimiser.step()
        if update:
            optimiser.zero_grad()
            if ema is not None:
                ema.update(module)

    def epoch() -> None:
        module.train()
        for number, batch in enumerate(loader, start=1):
            images, labels = batch if mixup is None else mixup(*batch)
            step(images.contiguous(memory_format=precision.memory_format), labels, update=number % accumulate == 0)

    return epoch


def _loader(pictures: Path, recipe: Recipe, spec: InputSpec, device: torch.device, *, count: int, workers: int) -> Any:
    """Return timm's loader, which normalises and erases on the device and copies one batch ahead."""
    dataset = create_dataset("", root=str(pictures), split="train", search_split=False, is_training=True)
    order = np.random.default_rng(0).permutation(len(dataset))[:count]
    dataset.reader.samples = [dataset.reader.samples[index] for index in order]
    return create_loader(
        dataset,
        input_size=(3, spec.size, spec.size),
        batch_size=recipe.batch,
        is_training=True,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        device=device,
        **_augmentation(recipe.augment),
    )


def _augmentation(config: AugmentConfig) -> dict[str, Any]:
    """Translate the recipe's augmentation to arguments of timm's loader."""
    # Magnitudes are 0 to 10 in timm, and 0 to 30 in torchvision.
    magnitude = round(config.policy_magnitude / 3)
    policy = f"rand-m{magnitude}-n{config.policy_ops}-p1.0" if config.policy == "randaugment" else None
    return {
        "scale": config.crop_scale,
        "ratio": config.crop_ratio,
        "hflip": config.flip,
        "vflip": config.vertical_flip,
        "color_jitter": config.brightness,
        "auto_augment": policy,
        "re_prob": config.erase,
    }


def _mixup(objective: Objective, *, classes: int) -> Any:
    if not objective.mixup and not objective.cutmix:
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=objective.mixup,
        cutmix_alpha=objective.cutmix,
        prob=objective.mix_prob,
        switch_prob=objective.switch_prob,
        label_smoothing=objective.smoothing,
        num_classes=classes,
    )


def _criterion(objective: Objective) -> torch.nn.Module:
    if objective.mixup or objective.cutmix:
        return SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]
    return LabelSmoothingCrossEntropy(smoothing=objective.smoothing)  # type: ignore[no-untyped-call]
