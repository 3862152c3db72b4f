"""Pictures to batches: loader processes that read and augment, in the order that the plan prescribes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from models.common.errors import HalftoneError
from models.common.host import cores
from training.data.dataset import PictureSet
from training.data.sampling import Plan, PlanSampler, Step, share

MOST_WORKERS = 16
"""A fast GPU with a small network takes what so many prepare; each has some hundred megabytes."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""uint8 (N, S, S, 3) and int64 (N,)."""

Loader = DataLoader[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class TrainingFeed:
    """The training batches of a run.

    Args:
        pictures: the training pictures, augmented.
        plan: order and batches.
        workers: loader processes; 0 reads in this one.
        pin: put batches into page-locked memory, for GPUs.
    """

    def __init__(self, pictures: PictureSet, plan: Plan, *, workers: int, pin: bool) -> None:
        self.pictures, self.plan, self.sampler = pictures, plan, PlanSampler()
        self.loader = _loader(pictures, self.sampler, workers=workers, pin=pin)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Step, list[Batch]]]:
        """The epoch's steps from `start` on, each with this process's micro-batches."""
        steps = self.plan.epoch(epoch)[start:]
        self.sampler.steps = steps
        self.pictures.set_epoch(epoch)
        batches = _batches(self.loader)
        for step in steps:
            yield step, [next(batches)[:2] for _ in step.parts]


class ValidationFeed:
    """One process's share of the validation pictures, in order.

    Args:
        pictures: the validation pictures.
        batch: pictures per batch of one process.
        rank: this process.
        world: number of processes.
        workers: loader processes.
        pin: put batches into page-locked memory.
    """

    def __init__(
        self,
        pictures: PictureSet,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int,
        pin: bool,
    ) -> None:
        self.pictures = pictures
        batches = share(len(pictures), batch=batch, rank=rank, world=world)
        self.loader = _loader(pictures, batches, workers=workers, pin=pin)

    def __iter__(self) -> Iterator[Batch]:
        return ((pixels, targets) for pixels, targets, _ in _batches(self.loader))


def default_workers(processes: int) -> int:
    """Loader processes for each of so many training processes on this machine."""
    return max(1, min(MOST_WORKERS, cores() // processes))


def _batches(loader: Loader) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The loader's batches; an error of one of its processes as it was raised there, without that one's traceback."""
    try:
        yield from loader
    except HalftoneError as error:
        # torch raises the same type with the process's traceback as its message, which ends in type and message.
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(str(error).rpartition(name)[2].strip()) from None


def _loader(
    pictures: PictureSet,
    batches: PlanSampler | list[list[int]],
    *,
    workers: int,
    pin: bool,
) -> Loader:
    return DataLoader(
        pictures,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_the_group if workers else None,
        # A generator of its own: the loader must not draw from the numbers that a step's dropout uses.
        generator=torch.Generator().manual_seed(0),
    )


def _leave_the_group(worker: int) -> None:
    """Ctrl-C and `timeout` reach the whole process group; only the training process may answer, and it ends these."""
    # Ignoring the signals instead would make Python wait for ever at its end, where it terminates what still runs.
    os.setpgid(0, 0)
