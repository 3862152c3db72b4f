"""Training objective: mixed and smoothed labels, class weights, knowledge distillation.

Losses are sums over images: the loop divides by the number of images of the whole step, so that neither accumulation
nor the number of processes changes the gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch.nn.functional import cross_entropy, interpolate, kl_div, log_softmax

from models.bundle.bundle import Bundle
from models.bundle.store import open_bundle
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.spec import InputSpec
from training.config.recipe import Objective
from training.data.batches.sampling import MIX
from training.data.seeds import derived_seed


class Mixing:
    """Mixup and CutMix of timm, as a function of (seed, step).

    Args:
        config: alphas and probabilities.
        classes: number of classes.
        seed: the run's seed.
    """

    def __init__(self, config: Objective, classes: int, seed: int) -> None:
        self.seed = seed
        self.mixup: Any = Mixup(  # type: ignore[no-untyped-call]
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            prob=config.mix_prob,
            switch_prob=config.switch_prob,
            label_smoothing=0.0,
            num_classes=classes,
        )

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch in place.

        Args:
            images: float (N, 3, S, S), N even.
            targets: int64 (N,).
            step: number of the batch in the run.

        Returns:
            The images and float targets (N, classes) that sum to 1.
        """
        with _numpy_seeded(derived_seed(self.seed, MIX, step)):
            mixed: tuple[torch.Tensor, torch.Tensor] = self.mixup(images, targets)
        return mixed


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, from which timm's Mixup draws, and restore its state at the end."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


def label_loss(
    logits: torch.Tensor, targets: torch.Tensor, *, smoothing: float, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the cross entropy with smoothed labels, summed over the batch.

    Args:
        logits: float32 (N, classes).
        targets: int64 (N,), or float (N, classes) after mixing.
        smoothing: share of the label to spread over all classes.
        weights: (classes,) factor on the loss of each class, or None.
    """
    return cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, reduction="sum")


class Teacher:
    """Teacher of knowledge distillation: a trained bundle.

    Args:
        bundle: the teacher.
        labels: the student's classes, in order.
        spec: the student's input; its normalised images are converted to the teacher's normalisation.
        config: hard or soft, and the temperature.

    Raises:
        HalftoneError: the classes differ.
    """

    def __init__(self, bundle: Bundle, labels: tuple[str, ...], spec: InputSpec, config: Objective) -> None:
        theirs = bundle.manifest
        if theirs.labels != labels:
            raise HalftoneError(
                f"--teacher {theirs.name} has the classes {', '.join(theirs.labels[:4])}…, and the data has "
                f"{', '.join(labels[:4])}…: train a teacher on the same classes first"
            )
        self.module = load_module(bundle).requires_grad_(False)
        self.size, self.resize = theirs.input.size, theirs.input.size != spec.size
        ours_mean, ours_std = torch.tensor(spec.mean), torch.tensor(spec.std)
        mean, std = torch.tensor(theirs.input.mean), torch.tensor(theirs.input.std)
        self.scale, self.shift = _planes(ours_std / std), _planes((ours_mean - mean) / std)
        self.hard, self.temperature = config.distillation == "hard", config.teacher_temperature

    def to(self, device: torch.device) -> Teacher:
        """Move the teacher to a device."""
        self.module.to(device)
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)
        return self

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes) for the student's normalised, possibly mixed images (N, 3, S, S)."""
        # Mixing takes weighted means, so converting the mixture is the same as mixing the converted images.
        images = images * self.scale + self.shift
        if self.resize:
            images = interpolate(images, size=(self.size, self.size), mode="bicubic", antialias=True)
        logits: torch.Tensor = self.module(images)
        return logits.float()

    def loss(self, logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """Return the distance from the teacher's logits, summed over the batch; both (N, classes)."""
        if self.hard:
            return cross_entropy(logits, teacher_logits.argmax(dim=1), reduction="sum")
        student, teacher = (log_softmax(values / self.temperature, dim=1) for values in (logits, teacher_logits))
        # T² keeps the gradient's magnitude independent of the temperature (Hinton et al., section 2).
        return kl_div(student, teacher, log_target=True, reduction="sum") * self.temperature**2


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels and loss of a training run."""

    smoothing: float
    weights: torch.Tensor | None = None
    """(classes,) factor on the loss of each class."""

    mixing: Mixing | None = None
    teacher: Teacher | None = None
    teacher_share: float = 0.0

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, teacher_logits: torch.Tensor | None) -> torch.Tensor:
        """Return the loss, summed over the batch.

        Args:
            logits: float32 (N, classes).
            labels: int64 (N,), or float (N, classes) after mixing.
            teacher_logits: (N, classes); None without a teacher.
        """
        loss = label_loss(logits, labels, smoothing=self.smoothing, weights=self.weights)
        if self.teacher is None or teacher_logits is None:
            return loss
        return torch.lerp(loss, self.teacher.loss(logits, teacher_logits), self.teacher_share)


def load_teacher(name: str, labels: tuple[str, ...], spec: InputSpec, config: Objective) -> Teacher:
    """Load the teacher from the bundle of that name.

    Raises:
        HalftoneError: no such bundle, or its classes differ.
    """
    return Teacher(open_bundle(name), labels, spec, config)


def correct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the number of predictions equal to the label, or to its largest part after mixing; int64 scalar."""
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == labels).sum()


def _planes(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(1, 3, 1, 1)
