"""Screening of candidates on frozen features: linear discriminants, cross-validated in the same folds for all.

No network is trained: a candidate costs one forward pass of each picture. Pictures that differ little are in one fold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models.common.errors import HalftoneError
from models.graph import Normalise
from models.spec import Architecture
from models.weights import start
from training.data.augment import EvaluationView
from training.data.check.labels import FOLDS, out_of_fold, stratified_folds
from training.data.dataset import PictureSet
from training.data.pictures import Pictures
from training.data.split import stratified_sample
from training.data.subsets import SelectedPictures
from training.frozen.features import Backbone, Plain, plain_features
from training.loop.frozen.folds import together
from training.optim.precision import precision

MOST = 2000
"""Pictures that are screened: the accuracies have a standard error of a point or less then."""

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Screened:
    """Answers of one candidate."""

    right: Right
    """(N,): right answers, of the pictures that are in folds."""

    seconds: float
    """For a picture."""


class Screen:
    """The same pictures and folds for all candidates.

    Args:
        pictures: the training pictures.
        size: side of the input in pixels; None for each network's own.
        seed: of the sample and the folds.
        device: of the networks.
        workers: loader processes.
        groups: from an earlier process, see `groups`; None to find them with the first candidate.
    """

    def __init__(
        self,
        pictures: Pictures,
        *,
        size: int | None,
        seed: int,
        device: torch.device,
        workers: int,
        groups: list[int] | None,
    ) -> None:
        if len(pictures) > MOST:
            pictures = SelectedPictures(pictures, stratified_sample(pictures, MOST, seed=seed))
        self._pictures, self._size, self._seed = pictures, size, seed
        self._device, self._workers = device, workers
        self.groups = groups
        """A number for each picture, equal for those that differ little; -1 for one that can't be read."""

    def answers(self, network: Architecture) -> Screened:
        """Return the cross-validated answers with the frozen features of a candidate.

        Raises:
            HalftoneError: its weights are not available, it doesn't support the size, or no two classes have enough
                different pictures.
            CorruptDataError: too many pictures can't be read.
        """
        started = time.monotonic()
        plain = self._features(network)
        if self.groups is None:
            self.groups = np.where(plain.readable, together(plain), -1).tolist()
        groups = np.array(self.groups, dtype=np.int64)
        chosen, labels = _in_folds(groups, plain.targets)
        folds = stratified_folds(labels, groups[chosen], seed=self._seed)
        scores = out_of_fold(plain.features.flatten(1).numpy()[chosen], labels, folds)
        seconds = (time.monotonic() - started) / len(plain.targets)
        return Screened(right=scores.argmax(axis=1) == labels, seconds=seconds)

    def _features(self, network: Architecture) -> Plain:
        size = self._size or network.input.size
        initial = start(network, "pretrained", classes=len(self._pictures.labels), size=size, seed=self._seed)
        how = precision("auto", initial.module, self._device, backbone_trained=False)
        spec = replace(initial.input, size=size)
        backbone = Backbone(
            module=how.place(initial.module), head=network.head, normalise=Normalise(spec).to(self._device),
            precision=how,
        )  # fmt: skip
        return plain_features(
            backbone, PictureSet(self._pictures, EvaluationView(spec), seed=self._seed), workers=self._workers
        )


def _in_folds(groups: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int64]]:
    """Return the indices of the pictures whose class has enough different ones for all folds, and their classes."""
    readable = np.flatnonzero(groups >= 0)
    first = readable[np.unique(groups[readable], return_index=True)[1]]
    distinct = np.bincount(targets[first], minlength=int(targets.max()) + 1)
    chosen = readable[(distinct >= FOLDS)[targets[readable]]]
    present, labels = np.unique(targets[chosen], return_inverse=True)
    if len(present) < 2:
        raise HalftoneError(
            f"fewer than two classes have {FOLDS} different training pictures, so candidates can't be compared: add "
            "pictures, or name an architecture yourself with `python -m training --model`"
        )
    return chosen, labels
