"""Choosing some pictures of every class: the validation split, and a smaller data set for trying things out.

A picture's place is decided by a hash of its name and the seed. So the choice depends neither on the order of the
files nor on the machine, and adding pictures moves hardly any of the old ones from one side to the other.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from models.common.errors import HalftoneError
from training.data.pictures import Pictures

Indices = npt.NDArray[np.int64]


def stratified_split(pictures: Pictures, *, val_share: float, seed: int) -> tuple[Indices, Indices]:
    """Indices to learn from and indices to judge by, both ascending; together every picture once.

    Each class gives `val_share` of its pictures, rounded, but at least one and not the last one. A class of a single
    picture gives none.

    Args:
        pictures: the whole set.
        val_share: in (0, 1).
        seed: another seed makes another split.

    Raises:
        HalftoneError: no class has two pictures.
    """
    ranks = _ranks(pictures, seed)
    counts = np.bincount(pictures.targets, minlength=len(pictures.labels))
    held_out = np.clip(np.rint(counts * val_share), 1, np.maximum(counts - 1, 0)).astype(np.int64)
    held_out[counts < 2] = 0
    chosen = ranks < held_out[pictures.targets]
    if not chosen.any():
        raise HalftoneError("no class has two pictures, so none can be held out for validation: add pictures")
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def stratified_sample(pictures: Pictures, count: int, *, seed: int) -> Indices:
    """`count` indices, ascending, in which every class has its share and at least one picture if `count` allows.

    Args:
        pictures: the whole set.
        count: at most the number of pictures.
        seed: another seed makes another choice.
    """
    counts = np.bincount(pictures.targets, minlength=len(pictures.labels))
    # The first of a class stands at 0, the middle one at 1/2: the lowest positions are an even choice from all classes.
    position = _ranks(pictures, seed) / counts[pictures.targets]
    return np.sort(np.argsort(position, kind="stable")[:count])


def first_of_every_class(pictures: Pictures, most: int, *, seed: int) -> Indices:
    """Up to `most` pictures of every class, ascending; arguments as for `stratified_sample`."""
    return np.flatnonzero(_ranks(pictures, seed) < most)


def _ranks(pictures: Pictures, seed: int) -> Indices:
    """Every picture's place within its class, from 0, in the order of the hashes."""
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
