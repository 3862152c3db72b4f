"""Which picture is seen when, and with which random numbers: all of it from (seed, epoch, step), none from state.

So a resumed run needs no generator's state, and neither the number of workers nor of processes changes the order.
"""

# MERGED-DOC """Seeds from numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

Indices = npt.NDArray[np.int64]

# Domains keep the numbers of one purpose apart from those of another with the same step.
ORDER, STEP, MIX = 1, 2, 3


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make everything that one step draws from torch's generators (dropout, drop-path) a function of the arguments."""
    torch.manual_seed(derived_seed(seed, STEP, step, rank))


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step: this process's parts of its micro-batches."""

    parts: tuple[Indices, ...]
    """Keys of the pictures, one array per micro-batch: index + number of pictures * earlier times in the epoch."""

    pictures: int
    """Pictures of the step over all micro-batches and processes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an epoch's pictures become steps.

    The pictures are dealt into nearly equal batches, so that no small rest is left over and every picture counts.
    """

    pictures: int
    batch: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    seed: int = 0

    pairs: bool = False
    """Deal pictures two by two, since Mixup needs even batches; an odd one out is shown twice."""

    weights: npt.NDArray[np.float64] | None = None
    """Chance of each picture to be drawn, with replacement; None shows each picture once."""

    @property
    def steps(self) -> int:
        """Optimiser steps per epoch, at least 1."""
        return -(-self._units // (self._per_batch * self.accumulate))

    @property
    def least(self) -> int:
        """Fewest pictures that a process sees at once; 0 where one would have none."""
        few, more = self._units // self.steps, -(-self._units // self.steps)
        return self._unit * min(units // self._micro(units) // self.world for units in (few, more))

    def order(self, epoch: int) -> Indices:
        """The epoch's pictures in the order in which they are seen, by all processes together."""
        generator = np.random.default_rng((self.seed, ORDER, epoch))
        if self.weights is None:
            order = generator.permutation(self.pictures)
        else:
            order = generator.choice(self.pictures, size=self.pictures, p=self.weights)
        return np.resize(order, self._units * self._unit).astype(np.int64)

    def epoch(self, epoch: int) -> list[Step]:
        """The epoch's steps as this process sees them."""
        order = self.order(epoch)
        units = (order + self.pictures * _occurrences(order)).reshape(-1, self._unit)
        return [self._step(part) for part in np.array_split(units, self.steps)]

    @property
    def _unit(self) -> int:
        """Pictures that are dealt together."""
        return 2 if self.pairs else 1

    @property
    def _units(self) -> int:
        return -(-self.pictures // self._unit)

    @property
    def _per_batch(self) -> int:
        """Most units per micro-batch."""
        return self.batch // self._unit

    def _micro(self, units: int) -> int:
        """Micro-batches for so many units."""
        return -(-units // self._per_batch)

    def _step(self, units: npt.NDArray[np.int64]) -> Step:
        batches = np.array_split(units, self._micro(len(units)))
        parts = tuple(part[self.rank :: self.world].reshape(-1) for part in batches)
        return Step(parts=parts, pictures=units.size)


def _occurrences(order: Indices) -> Indices:
    """How often each entry has come before, (N,)."""
    places = np.argsort(order, kind="stable")
    _, starts, counts = np.unique(order[places], return_index=True, return_counts=True)
    before = np.empty_like(order)
    before[places] = np.arange(len(order)) - np.repeat(starts, counts)
    return before


class PlanSampler(Sampler[list[int]]):
    """Batch sampler over an epoch's micro-batches, which can start in the middle; set `steps` before every epoch."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter([part.tolist() for step in self.steps for part in step.parts])

    def __len__(self) -> int:
        return sum(len(step.parts) for step in self.steps)


def share(pictures: int, *, batch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """One process's validation batches: every picture once over all processes, in order."""
    mine = range(rank, pictures, world)
    return [list(mine[start : start + batch]) for start in range(0, len(mine), batch)]


def derived_seed(*parts: int) -> int:
    """A seed of 63 bits from whole numbers >= 0; equal parts give equal seeds, others unrelated ones."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
