"""torch data set of augmented images, which replaces and records unreadable images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from models.common.errors import HalftoneError
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from training.data.batches.shared_memory import share_memory
from training.data.pictures import Pictures
from training.data.seeds import derived_seed

View = Callable[[Pixels, int], Pixels]
"""Converts uint8 (H, W, 3) and a seed to uint8 (S, S, 3)."""

# Separates these random numbers from those that training.data.batches.sampling derives from the same seed.
AUGMENT = 4

NAMED = 20
"""Largest number of broken images that a message lists."""


def listed(names: list[str]) -> str:
    """Join the first names, and the number of the remaining ones."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


class CorruptDataError(HalftoneError):
    """More images are unreadable than allowed."""


class PictureSet(Dataset[tuple[torch.Tensor, int, int]]):
    """Labelled images as network inputs.

    An item depends on (seed, epoch, key) alone: neither on the order, nor on the number of loader processes, nor on the
    step at which a run resumes. A key is an index; for the n-th repetition of an image in an epoch, it is the index
    plus n times the number of images, which gives another augmentation. An unreadable image is replaced by the next one
    of its class.

    Args:
        pictures: the images.
        view: converts a decoded image and a seed to the network's input.
        seed: of the run.
        max_corrupt_share: largest allowed share of unreadable images, in [0, 1]; unless it is 0, one is always allowed.
    """

    def __init__(self, pictures: Pictures, view: View, *, seed: int, max_corrupt_share: float = 0.01) -> None:
        self.pictures, self.view, self.seed = pictures, view, seed
        allowed = int(max_corrupt_share * len(pictures))
        self._allowed = max(1, allowed) if max_corrupt_share else 0
        # In shared memory: running loader processes see the new epoch, and this process the broken images they find.
        self._epoch, self._broken = torch.zeros((), dtype=torch.int64), torch.zeros(len(pictures), dtype=torch.bool)
        self.shared = share_memory(self._epoch, self._broken)
        """False if there is no shared memory: then only this process may read images."""

    def __len__(self) -> int:
        return len(self.pictures)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the augmentation, also in running loader processes."""
        self._epoch.fill_(epoch)

    def __getitem__(self, key: int) -> tuple[torch.Tensor, int, int]:
        """Return uint8 (S, S, 3), the class, and the index.

        Raises:
            CorruptDataError: too many images can't be read, or none of a class can.
        """
        occurrence, index = divmod(key, len(self))
        seed = derived_seed(self.seed, AUGMENT, int(self._epoch), index, *([occurrence] if occurrence else ()))
        pixels = self.view(self._readable(index), seed)
        # Pillow's arrays are read-only, which torch.from_numpy warns about.
        return torch.from_numpy(np.require(pixels, requirements=["C", "W"])), int(self.pictures.targets[index]), index

    def broken(self) -> torch.Tensor:
        """Return bool (N,): the unreadable images found so far, by this process and its loader processes."""
        return self._broken.clone()

    def mark_broken(self, marks: torch.Tensor) -> None:
        """Record the images marked in bool (N,) as broken, also in running loader processes."""
        self._broken |= marks

    def names(self, chosen: torch.Tensor) -> list[str]:
        """Return the names of the images marked in bool (N,)."""
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
        indices = np.flatnonzero(self.pictures.targets == self.pictures.targets[index])
        place = int(np.searchsorted(indices, index))
        return [int(other) for other in (*indices[place + 1 :], *indices[:place])]

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
