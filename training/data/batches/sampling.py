"""Order, batches and seeds of training, all derived from (seed, epoch, step).

A resumed run therefore needs no generator's state, and the order depends neither on the number of loader processes nor
on that of training processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from training.data.seeds import derived_seed

Indices = npt.NDArray[np.int64]

# The first part of a seed separates random numbers of different purposes with the same step.
ORDER, STEP, MIX = 1, 2, 3


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch's generators, from which dropout and drop-path draw, as a function of the arguments."""
    number = derived_seed(seed, STEP, step, rank)
    # Without a GPU in use, torch.manual_seed spends 2 ms on keeping the call for later.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Micro-batches of one optimiser step in this process."""

    parts: tuple[Indices, ...]
    """Keys of the images, one array per micro-batch: index + number of images * earlier draws in the epoch."""

    pictures: int
    """Number of images of the step over all micro-batches and processes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Order of the images and their division into steps.

    The images are divided into nearly equal batches, so that no small last batch remains and every image counts.
    """

    pictures: int
    batch: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    seed: int = 0

    pairs: bool = False
    """Keep images in pairs, because Mixup needs even batches; if their number is odd, one image comes twice."""

    weights: npt.NDArray[np.float64] | None = None
    """Probability of drawing each image, with replacement; None draws each image once."""

    @property
    def steps(self) -> int:
        """Optimiser steps per epoch, at least 1."""
        return -(-self._units // (self._per_batch * self.accumulate))

    @property
    def least(self) -> int:
        """Smallest number of images in a micro-batch of one process; 0 if a process has none."""
        few, more = self._units // self.steps, -(-self._units // self.steps)
        return self._unit * min(units // self._micro(units) // self.world for units in (few, more))

    def order(self, epoch: int) -> Indices:
        """Return the images of an epoch in order, for all processes together."""
        generator = np.random.default_rng((self.seed, ORDER, epoch))
        if self.weights is None:
            order = generator.permutation(self.pictures)
        else:
            order = generator.choice(self.pictures, size=self.pictures, p=self.weights)
        return np.resize(order, self._units * self._unit).astype(np.int64)

    def epoch(self, epoch: int) -> list[Step]:
        """Return the steps of an epoch for this process."""
        order = self.order(epoch)
        units = (order + self.pictures * _occurrences(order)).reshape(-1, self._unit)
        return [self._step(part) for part in np.array_split(units, self.steps)]

    @property
    def _unit(self) -> int:
        """Images that stay together."""
        return 2 if self.pairs else 1

    @property
    def _units(self) -> int:
        return -(-self.pictures // self._unit)

    @property
    def _per_batch(self) -> int:
        """Largest number of units per micro-batch."""
        return self.batch // self._unit

    def _micro(self, units: int) -> int:
        """Return the number of micro-batches for the units of a step."""
        return -(-units // self._per_batch)

    def _step(self, units: npt.NDArray[np.int64]) -> Step:
        batches = np.array_split(units, self._micro(len(units)))
        parts = tuple(part[self.rank :: self.world].reshape(-1) for part in batches)
        return Step(parts=parts, pictures=units.size)


def _occurrences(order: Indices) -> Indices:
    """Return (N,): the number of earlier occurrences of each entry."""
    places = np.argsort(order, kind="stable")
    _, starts, counts = np.unique(order[places], return_index=True, return_counts=True)
    before = np.empty_like(order)
    before[places] = np.arange(len(order)) - np.repeat(starts, counts)
    return before


class PlanSampler(Sampler[list[int]]):
    """Batch sampler over the micro-batches of `steps`, which must be set before every epoch."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter([part.tolist() for step in self.steps for part in step.parts])

    def __len__(self) -> int:
        return sum(len(step.parts) for step in self.steps)


def share(pictures: int, *, batch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Return one process's validation batches; over all processes, they contain every image once and in order."""
    mine = range(rank, pictures, world)
    return [list(mine[start : start + batch]) for start in range(0, len(mine), batch)]
