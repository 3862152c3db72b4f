"""Batches from loader processes, which read and augment images in the order of a plan."""

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
"""Enough for a fast GPU with a small network; each process uses several hundred MB."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""uint8 (N, S, S, 3) and int64 (N,)."""

Loader = DataLoader[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class TrainingFeed:
    """Training batches of a run.

    Args:
        pictures: the augmented training images.
        plan: order and batches.
        workers: loader processes; 0 reads in this process.
        pin: put batches into page-locked memory, for GPUs.
    """

    def __init__(self, pictures: PictureSet, plan: Plan, *, workers: int, pin: bool) -> None:
        self.pictures, self.plan, self.sampler = pictures, plan, PlanSampler()
        self.loader = _loader(pictures, self.sampler, workers=workers, pin=pin)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Step, list[Batch]]]:
        """Yield the steps of an epoch from number `start`, each with the micro-batches of this process."""
        steps = self.plan.epoch(epoch)[start:]
        self.sampler.steps = steps
        self.pictures.set_epoch(epoch)
        batches = _batches(self.loader)
        for step in steps:
            yield step, [next(batches)[:2] for _ in step.parts]


class ValidationFeed:
    """Validation batches of one process, in order.

    Args:
        pictures: the validation images.
        batch: images per batch of one process.
        rank: of this process.
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
    """Return the number of loader processes for each of the training processes on this machine."""
    return max(1, min(MOST_WORKERS, cores() // processes))


def _batches(loader: Loader) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield the loader's batches; raise an error of a loader process without that process's traceback."""
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
        # A separate generator: the loader must not draw from the one that dropout uses.
        generator=torch.Generator().manual_seed(0),
    )


def _leave_the_group(worker: int) -> None:
    """Leave the process group: its signals (Ctrl-C, `timeout`) are for the training process, which ends its loaders."""
    # Not by ignoring SIGTERM: Python terminates its remaining child processes when it exits, and would wait forever.
    os.setpgid(0, 0)
