"""Pictures as a torch data set: augmented by (seed, epoch, key), with broken pictures replaced, named and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from models.common.errors import HalftoneError
from models.preprocess.decode import ImageError
from models.preprocess.resample import Pixels
from training.data.pictures import Pictures
from training.data.sampling import derived_seed

View = Callable[[Pixels, int], Pixels]
"""From uint8 (H, W, 3) and a seed to uint8 (S, S, 3)."""

# Keeps these random numbers apart from those that training.data.sampling derives from the same run's seed.
AUGMENT = 4

NAMED = 20
"""Most broken pictures that a message lists."""


def listed(names: list[str]) -> str:
    """The first names, and how many there are besides."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


class CorruptDataError(HalftoneError):
    """More pictures can't be read than is allowed."""


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    share: Any = tensor.share_memory_
    share()
    return tensor


class PictureSet(Dataset[tuple[torch.Tensor, int, int]]):
    """Labelled pictures as a network sees them.

    What is seen under a key depends on (seed, epoch, key) alone, whatever the order, the number of loader processes
    and where a resumed run goes on. A key is an index, or for the n-th repetition of a picture in an epoch the index
    plus n times the number of pictures: it is augmented otherwise. A picture that can't be read is replaced by the next
    one of its class.

    Args:
        pictures: where they come from.
        view: from the decoded picture and a seed to the network's input.
        seed: of the run.
        max_corrupt_share: share of unreadable pictures that is put up with, in [0, 1]; one picture always is, unless 0.
    """

    def __init__(self, pictures: Pictures, view: View, *, seed: int, max_corrupt_share: float = 0.01) -> None:
        self.pictures, self.view, self.seed = pictures, view, seed
        allowed = int(max_corrupt_share * len(pictures))
        self._allowed = max(1, allowed) if max_corrupt_share else 0
        # Shared memory: loader processes that live on learn the new epoch, and this process what they found.
        self._epoch = _shared(torch.zeros((), dtype=torch.int64))
        self._broken = _shared(torch.zeros(len(pictures), dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.pictures)

    def set_epoch(self, epoch: int) -> None:
        """Change what the augmentation draws; known to loader processes that run already."""
        self._epoch.fill_(epoch)

    def __getitem__(self, key: int) -> tuple[torch.Tensor, int, int]:
        """uint8 (S, S, 3), the class, and the index.

        Raises:
            CorruptDataError: too many pictures can't be read, or none of a class can.
        """
        occurrence, index = divmod(key, len(self))
        seed = derived_seed(self.seed, AUGMENT, int(self._epoch), index, *([occurrence] if occurrence else ()))
        pixels = self.view(self._readable(index), seed)
        # Pillow's arrays are read-only, which torch.from_numpy warns about.
        return torch.from_numpy(np.require(pixels, requirements=["C", "W"])), int(self.pictures.targets[index]), index

    def broken(self) -> torch.Tensor:
        """bool (N,): the pictures that could not be read so far, by any loader process of this one."""
        return self._broken.clone()

    def mark_broken(self, marks: torch.Tensor) -> None:
        """Count the pictures that are marked in bool (N,) as broken; known to loader processes that run already."""
        self._broken |= marks

    def names(self, chosen: torch.Tensor) -> list[str]:
        """The names of the pictures that are marked in bool (N,)."""
        return [self.pictures.name(int(index)) for index in torch.nonzero(chosen)]

    def _readable(self, index: int) -> Pixels:
        try:
            return self.pictures.read(index)
        except ImageError as error:
            self._count(index, error)
        for other in self._same_class_after(index):
            try:
                return self.pictures.read(other)
            except ImageError as error:
                self._count(other, error)
        label = self.pictures.labels[self.pictures.targets[index]]
        raise CorruptDataError(f"no picture of the class {label!r} can be read: replace {self._list()}")

    def _same_class_after(self, index: int) -> list[int]:
        mates = np.flatnonzero(self.pictures.targets == self.pictures.targets[index])
        place = int(np.searchsorted(mates, index))
        return [int(mate) for mate in (*mates[place + 1 :], *mates[:place])]

    def _count(self, index: int, error: ImageError) -> None:
        self._broken[index] = True
        count = int(self._broken.sum())
        if count > self._allowed:
            raise CorruptDataError(
                f"{count} of {len(self)} pictures can't be read, more than the {self._allowed} allowed: repair or "
                f"remove {self._list()}, or allow more with --max-corrupt-share (the last one: {error})"
            ) from None

    def _list(self) -> str:
        return listed(self.names(self._broken))
