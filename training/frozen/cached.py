"""Batches of computed features, in the place of those of images, and the head that is trained on them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import dropout

from training.data.batches.loader import Batch
from training.data.batches.sampling import Indices, Plan, Step
from training.data.dataset import PictureSet


class FrozenHead(torch.nn.Module):
    """Head of a network as a network of its own, which takes features.

    Args:
        head: the classifier; shared with its network, which has the trained weights too.
        drop_rate: dropout of the features in training, in [0, 1).
    """

    def __init__(self, head: torch.nn.Module, drop_rate: float) -> None:
        super().__init__()
        self.head, self.drop_rate = head, drop_rate

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes) of features (N, …)."""
        logits: torch.Tensor = self.head(dropout(features, self.drop_rate, training=self.training))
        return logits


class CachedTraining:
    """Training batches of features; an epoch takes one view of each image, the next epoch the next one.

    Args:
        pictures: the images, for their names.
        plan: order and batches.
        views: float32 (N, V, F).
        targets: int64 (N,).
    """

    def __init__(self, pictures: PictureSet, plan: Plan, views: torch.Tensor, targets: torch.Tensor) -> None:
        self.pictures, self.plan, self.views, self.targets = pictures, plan, views, targets

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Step, list[Batch]]]:
        """Yield the steps of an epoch from number `start`, each with its micro-batches."""
        for step in self.plan.epoch(epoch)[start:]:
            yield step, [self._batch(epoch, keys) for keys in step.parts]

    def _batch(self, epoch: int, keys: Indices) -> Batch:
        # The n-th repetition of an image in an epoch has the key index + n * images.
        occurrence, index = np.divmod(keys, self.plan.pictures)
        return self.views[index, (epoch + occurrence) % self.views.shape[1]], self.targets[index]


class CachedValidation:
    """Validation batches of features, in order.

    Args:
        pictures: the images, for their names.
        features: float32 (N, F).
        targets: int64 (N,).
        batch: images per batch.
    """

    def __init__(self, pictures: PictureSet, features: torch.Tensor, targets: torch.Tensor, *, batch: int) -> None:
        starts = range(0, len(targets), batch)
        self.pictures = pictures
        self._batches = [(features[start : start + batch], targets[start : start + batch]) for start in starts]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)
