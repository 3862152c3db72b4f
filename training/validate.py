"""A network's answers on the validation pictures, and the figures made of them, for any number of processes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn.functional import cross_entropy

from models.graph import Normalise
from training.distributed import World
from training.feed import Batch
from training.precision import Precision


@torch.no_grad()
def answers(
    module: torch.nn.Module,
    normalise: Normalise,
    batches: Iterable[Batch],
    precision: Precision,
    world: World,
    *,
    pictures: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 (pictures, classes) and targets int64 (pictures,) on the CPU, in order, in every process.

    Args:
        module: the network; it is in evaluation mode afterwards.
        normalise: pixels to planes.
        batches: this process's share.
        precision: how to execute it.
        world: the processes among which the pictures are dealt.
        pictures: how many there are over all processes.
    """
    module.eval()
    logits, targets = [], []
    for pixels, labels in batches:
        images = normalise(pixels.to(precision.device, non_blocking=True))
        with precision.autocast():
            output = module(images.contiguous(memory_format=precision.memory_format))
        logits.append(output.float())
        targets.append(labels.to(precision.device))
    return world.gather(torch.cat(logits), pictures).cpu(), world.gather(torch.cat(targets), pictures).cpu()


def figures(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """`val_loss` (mean cross entropy in nats), `val_top1` and `val_top5` (shares in [0, 1]; of all classes below 5).

    Args:
        logits: float32 (N, classes).
        targets: int64 (N,).
    """
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranked == targets[:, None]
    return {
        "val_loss": float(cross_entropy(logits, targets)),
        "val_top1": float(hits[:, 0].double().mean()),
        "val_top5": float(hits.any(dim=1).double().mean()),
    }
