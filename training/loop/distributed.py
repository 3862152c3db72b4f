"""Distributed training: one process, or several under `torchrun --nproc-per-node N -m training …`, on any nodes.

DistributedDataParallel averages the gradients, over NCCL between GPUs and gloo between CPUs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from models.common.cli import WRONG_REQUEST
from models.common.errors import HalftoneError


@dataclass(frozen=True, kw_only=True)
class World:
    """Rank, world size and device of a process, with the collective operations of a run."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """True for the process that writes files and the screen."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes; the tensor itself if there is only one process."""
        if self.size == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return, for each flag, True if it is set in any process; the same in every process."""
        if self.size == 1:
            return flags
        counts = self.total(torch.tensor(flags, dtype=torch.int32, device=self.device))
        return tuple(count > 0 for count in counts.tolist())

    def union(self, marks: torch.Tensor) -> torch.Tensor:
        """Return bool (N,), on the CPU: the entries marked in any process; the same in every process."""
        return self.total(marks.to(self.device, torch.int32)).cpu() > 0

    def gather(self, rows: torch.Tensor, pictures: int) -> torch.Tensor:
        """Return rows that are distributed round-robin over the processes, in their original order, in every process.

        Args:
            rows: (n, …) of this process, the rows rank, rank + size, … of the whole.
            pictures: number of rows of the whole.

        Returns:
            (pictures, …) on the same device.
        """
        if self.size == 1:
            return rows
        longest = -(-pictures // self.size)
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).reshape(-1, *rows.shape[1:])[:pictures]

    def align(self, module: torch.nn.Module) -> None:
        """Copy the batch-norm statistics of the main process to all; each process collects them from its own images."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def first(self, action: Callable[[], None]) -> None:
        """Run the action in the main process, before all processes continue.

        Raises:
            HalftoneError: raised by the action, in the main process; the others exit without a message.
        """
        failure: HalftoneError | None = None
        if self.main:
            try:
                action()
            except HalftoneError as error:
                failure = error
        if self.any(failure is not None)[0]:
            raise failure or SystemExit(WRONG_REQUEST)

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the process group of torchrun, if there is one, and leave it at the end.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        HalftoneError: `cuda` is requested without a GPU, there are more processes than GPUs, or another process of the
            run ended.
    """
    size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local_rank)
    if size == 1:
        yield World(device=place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, device=place)
    except RuntimeError as error:
        # Those of torch.distributed are of this kind too; gloo has none of its own.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise HalftoneError(
            "another process of this run ended: torchrun starts all of them again if it has --max-restarts; else "
            "repeat the command on every node, which goes on from the last checkpoint"
        ) from None
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise HalftoneError("--device cuda: this machine has no CUDA GPU that torch can use; use --device cpu")
    if name == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise HalftoneError(
            f"there are more processes than GPUs ({torch.cuda.device_count()}): "
            "lower torchrun's --nproc-per-node, or use --device cpu"
        )
    return torch.device("cuda", local_rank)
