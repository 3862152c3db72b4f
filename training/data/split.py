"""Stratified choices: the validation split, and smaller samples of a data set.

A hash of an image's name and the seed decides its place. The choice therefore depends neither on the order of the files
nor on the machine, and new images change the part of hardly any old one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.common.errors import HalftoneError
from training.data.pictures import TEST_LEFT_ALONE, Data, Pictures
from training.data.subsets import SelectedPictures

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Division of data without parts."""

    val: float = 0.2
    """Share of every class for validation, in (0, 1)."""

    test: float = 0.0
    """Share of every class for the test, in [0, 1 - val)."""

    seed: int = 0
    """Another seed makes another division."""


def stratified_split(
    pictures: Pictures, *, val_share: float, seed: int, for_training: bool = True
) -> tuple[Indices, Indices]:
    """Return the indices of the training and of the validation images, ascending; together every image once.

    Validation gets `val_share` of every class, rounded, but at least one image and never all of them. A class of a
    single image stays in training.

    Args:
        pictures: the whole set.
        val_share: in (0, 1).
        seed: another seed makes another split.
        for_training: False if the validation part may be empty.

    Raises:
        HalftoneError: no class has two images, and the split is for training.
    """
    ranks = _ranks(pictures, seed)
    counts = np.bincount(pictures.targets, minlength=len(pictures.labels))
    held_out = np.clip(np.rint(counts * val_share), 1, np.maximum(counts - 1, 0)).astype(np.int64)
    held_out[counts < 2] = 0
    chosen = ranks < held_out[pictures.targets]
    if for_training and not chosen.any():
        raise HalftoneError("no class has two pictures, so none can be held out for validation: add pictures")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def divided(
    pictures: Pictures, name: str, shares: Shares, *, for_training: bool = True, warnings: tuple[str, ...] = ()
) -> Data:
    """Return the data of a set without parts; its training part keeps at least one image of every class.

    Args:
        pictures: the whole set.
        name: its source in words.
        shares: of the parts.
        for_training: as for `stratified_split`.
        warnings: for the user.

    Raises:
        HalftoneError: as for `stratified_split`.
    """
    train, val = stratified_split(pictures, val_share=shares.val, seed=shares.seed, for_training=for_training)
    held_out, test = f"{shares.val:.0%} of every class held out", None
    if shares.test:
        rest, share = SelectedPictures(pictures, train), shares.test / (1 - shares.val)
        kept, tested = stratified_split(rest, val_share=share, seed=shares.seed, for_training=False)
        test, train = SelectedPictures(pictures, train[tested]), train[kept]
        held_out = f"{shares.val:.0%} of every class for validation and {shares.test:.0%} for the test"
        warnings += (TEST_LEFT_ALONE.format(test="the part test"),)
    return Data(
        train=SelectedPictures(pictures, train),
        val=SelectedPictures(pictures, val),
        test=test,
        description=f"{name}: {held_out} (seed {shares.seed})",
        own_split=False,
        warnings=warnings,
    )


def stratified_sample(pictures: Pictures, count: int, *, seed: int) -> Indices:
    """Return `count` indices, ascending; every class has its share, and at least one image if `count` allows it.

    Args:
        pictures: the whole set.
        count: at most the number of images.
        seed: another seed makes another choice.
    """
    counts = np.bincount(pictures.targets, minlength=len(pictures.labels))
    # The first image of a class has position 0, the middle one 1/2: the lowest positions are spread over all classes.
    position = _ranks(pictures, seed) / counts[pictures.targets]
    return np.sort(np.argsort(position, kind="stable")[:count])


def first_of_every_class(pictures: Pictures, most: int, *, seed: int) -> Indices:
    """Return the indices of up to `most` images of every class, ascending; arguments as for `stratified_sample`."""
    return np.flatnonzero(_ranks(pictures, seed) < most)


def _ranks(pictures: Pictures, seed: int) -> Indices:
    """Return the rank of every image within its class, from 0, in the order of the hashes."""
    hashes = np.array([_hash(pictures.name(index), seed) for index in range(len(pictures))], dtype=np.uint64)
    order = np.lexsort((hashes, pictures.targets))
    counts = np.bincount(pictures.targets, minlength=len(pictures.labels))
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(pictures), dtype=np.int64)
    ranks[order] = np.arange(len(pictures)) - starts[pictures.targets[order]]
    return ranks


def _hash(name: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
