"""Features of images by a frozen backbone: the inputs of the network's head, computed once.

While only the head is trained, the backbone computes the same in each epoch, but for the augmentation. A few augmented
views of each image stand for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import track

from models.graph import Normalise
from models.preprocess.resample import Pixels
from training.data.augment import Augment
from training.data.batches.loader import ValidationFeed
from training.data.check.doublets import Thumbnails
from training.data.dataset import PictureSet
from training.data.seeds import derived_seed
from training.frozen.fusion import fused
from training.optim.precision import Precision

BATCH = 16
"""Images per forward pass; on a CPU, 8 take a tenth to a fifth longer, and 32 gain less than 5 %."""

VIEWS = 4
"""Augmented views of each image; docs/training.md has what was measured."""


@dataclass(frozen=True, kw_only=True)
class ManyViews:
    """Several augmented views of an image, which is decoded once."""

    augment: Augment
    count: int

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        """Convert uint8 (H, W, 3) to uint8 (count, S, S, 3)."""
        return np.stack([self.augment(image, derived_seed(seed, number)) for number in range(self.count)])


@dataclass(kw_only=True)
class Backbone:
    """Network whose head's inputs are wanted."""

    module: torch.nn.Module
    """In evaluation mode, on the device and in the memory format of `precision`."""

    head: str
    """Module name of the classifier."""

    normalise: Normalise
    """On the device."""

    precision: Precision

    _fused: torch.nn.Module | None = field(default=None, init=False)

    @torch.no_grad()
    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the head, float32 (…, F) on the CPU, of uint8 (…, S, S, 3)."""
        images = self.normalise(pixels.flatten(0, -4).to(self.precision.device, non_blocking=True))
        images = images.contiguous(memory_format=self.precision.memory_format)
        if self._fused is None:
            # Measured on CPUs only.
            on_cpu = self.precision.device.type == "cpu"
            self._fused = self.precision.place(fused(self.module, images[:1])) if on_cpu else self.module
        with self.precision.autocast(), _inputs(self._fused.get_submodule(self.head)) as found:
            self._fused(images)
        features = found[0].float().cpu()
        return features.reshape(*pixels.shape[:-3], *features.shape[1:])


@contextlib.contextmanager
def _inputs(layer: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the inputs of a layer."""
    found: list[torch.Tensor] = []

    def collect(_: torch.nn.Module, given: tuple[Any, ...]) -> None:
        found.append(given[0])

    handle = layer.register_forward_pre_hook(collect)
    try:
        yield found
    finally:
        handle.remove()


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Features of images as evaluation sees them."""

    features: torch.Tensor
    """float32 (N, F)."""

    thumbnails: npt.NDArray[np.uint8]
    """Of what the network sees, uint8 (N, 16, 16, 3)."""

    targets: npt.NDArray[np.int64]
    """(N,): classes."""

    readable: npt.NDArray[np.bool_]
    """(N,): False for an image of which another of its class takes the place."""

    def of(self, chosen: npt.NDArray[np.int64]) -> Self:
        """Return the values of the images with the indices int64 (M,)."""
        return replace(
            self,
            features=self.features[chosen],
            thumbnails=self.thumbnails[chosen],
            targets=self.targets[chosen],
            readable=self.readable[chosen],
        )


def plain_features(backbone: Backbone, pictures: PictureSet, *, workers: int) -> Plain:
    """Compute the features of images with the view of evaluation.

    Args:
        backbone: the network.
        pictures: with `EvaluationView`.
        workers: loader processes.

    Raises:
        CorruptDataError: too many images can't be read.
    """
    thumbnails, found = Thumbnails(), []
    for pixels in _batches(pictures, BATCH, workers=workers, pin=backbone.precision.device.type == "cuda"):
        found.append(backbone.features(pixels))
        for view in pixels.numpy():
            thumbnails.add(view)
    return Plain(
        features=torch.cat(found) if found else torch.zeros(0, 1),
        thumbnails=thumbnails.pixels(),
        targets=pictures.pictures.targets,
        readable=~pictures.broken().numpy(),
    )


def view_features(backbone: Backbone, pictures: PictureSet, *, workers: int) -> torch.Tensor:
    """Return the features of several views of each image, float32 (N, V, F); arguments as for `plain_features`.

    Args:
        backbone: the network.
        pictures: with `ManyViews`.
        workers: loader processes.

    Raises:
        CorruptDataError: too many images can't be read.
    """
    feed = _batches(pictures, BATCH // VIEWS, workers=workers, pin=backbone.precision.device.type == "cuda")
    return torch.cat([backbone.features(pixels) for pixels in feed])


def _batches(pictures: PictureSet, batch: int, *, workers: int, pin: bool) -> Iterator[torch.Tensor]:
    console = Console(stderr=True)
    feed = ValidationFeed(pictures, batch=batch, workers=workers, pin=pin)
    total = -(-len(pictures) // batch)
    # Into a file, a finished bar would write an empty line.
    silent = not console.is_terminal
    for pixels, _ in track(feed, "computing features", total, console=console, transient=True, disable=silent):
        yield pixels
