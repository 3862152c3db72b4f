"""Batches from loader processes, which read and augment images in the order of a plan."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, default_collate

from models.common.errors import HalftoneError
from models.common.host import cores
from models.common.memory import give_back_freed_memory
from training.data.batches.sampling import Plan, PlanSampler, Step, share
from training.data.batches.shared_memory import ran_out, warn
from training.data.dataset import PictureSet

MOST_WORKERS = 16
"""Enough for a fast GPU with a small network; each process uses several hundred MB."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""uint8 (N, S, S, 3) and int64 (N,)."""

Loader = DataLoader[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

Order = PlanSampler | list[list[int]]
"""Keys of each batch."""


class TrainingBatches(Protocol):
    """What the training loop reads."""

    pictures: PictureSet
    plan: Plan

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Step, list[Batch]]]:
        """Yield the steps of an epoch from number `start`, each with the micro-batches of this process."""


class ValidationBatches(Protocol):
    """What validation reads, in the order of the images."""

    pictures: PictureSet

    def __iter__(self) -> Iterator[Batch]: ...


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
        self.batches = _Batches(pictures, self.sampler, workers=workers, pin=pin)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Step, list[Batch]]]:
        """Yield the steps of an epoch from number `start`, each with the micro-batches of this process."""
        steps = self.plan.epoch(epoch)[start:]
        self.sampler.steps = steps
        self.pictures.set_epoch(epoch)
        batches = iter(self.batches)
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
        order = share(len(pictures), batch=batch, rank=rank, world=world)
        self.batches = _Batches(pictures, order, workers=workers, pin=pin)

    def __iter__(self) -> Iterator[Batch]:
        return ((pixels, targets) for pixels, targets, _ in self.batches)


def default_workers(processes: int) -> int:
    """Return the number of loader processes for each of the training processes on this machine."""
    return max(1, min(MOST_WORKERS, cores() // processes))


class _Batches:
    """Batches of a loader, iterable once an epoch; without enough shared memory, this process reads the images.

    Args:
        pictures: the images.
        order: the keys of each batch, read again by each iteration.
        workers: loader processes.
        pin: put batches into page-locked memory.
    """

    def __init__(self, pictures: PictureSet, order: Order, *, workers: int, pin: bool) -> None:
        self.pictures, self.order, self.pin = pictures, order, pin
        if workers and not pictures.shared:
            warn()
            workers = 0
        self.loader = _loader(pictures, order, workers=workers, pin=pin)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        done = 0
        try:
            for batch in _without_traceback(self.loader):
                yield batch
                done += 1
        except (OSError, RuntimeError) as error:
            if not self.loader.num_workers or not ran_out(error):
                raise
            warn()
            self.loader = _loader(self.pictures, self.order, workers=0, pin=self.pin)
        else:
            return
        # An item depends on its key alone, so the rest of the epoch is what it would have been.
        yield from _loader(self.pictures, list(self.order)[done:], workers=0, pin=self.pin)


def _without_traceback(loader: Loader) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield the loader's batches; raise an error of a loader process without that process's traceback."""
    try:
        yield from loader
    except HalftoneError as error:
        # torch raises the same type with the process's traceback as its message, which ends in type and message.
        name = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(str(error).rpartition(name)[2].strip()) from None


def _loader(pictures: PictureSet, order: Order, *, workers: int, pin: bool) -> Loader:
    # More processes than cores are wanted where reading waits for a network or a disk; torch would warn of them for
    # every loader and every epoch, with lines of its own source. Not for this call alone: each epoch warns again.
    warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
    return DataLoader(
        pictures,  # type: ignore[arg-type]
        batch_sampler=order,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=_become_a_loader if workers else None,
        collate_fn=_shared_batch if workers else None,
        # A separate generator: the loader must not draw from the one that dropout uses.
        generator=torch.Generator().manual_seed(0),
    )


def _shared_batch(items: list[tuple[torch.Tensor, int, int]]) -> list[torch.Tensor]:
    """Return a batch in shared memory.

    torch would share the small tensors in a thread of the loader process, whose errors it prints and drops: this
    process would wait for ever.
    """
    batch: list[torch.Tensor] = default_collate(items)
    for tensor in batch:
        share: Any = tensor.share_memory_
        share()
    return batch


def _become_a_loader(worker: int) -> None:
    """Undo what a loader process has from the training process: its group and its keeping of memory."""
    # The group's signals (Ctrl-C, `timeout`) are for the training process, which ends its loaders. Not by ignoring
    # SIGTERM: Python terminates its remaining child processes when it exits, and would wait forever.
    os.setpgid(0, 0)
    # It would keep the memory of the largest image for the whole run.
    give_back_freed_memory()
