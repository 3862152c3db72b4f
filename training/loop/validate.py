"""A network's answers on the validation pictures, and the figures made of them, for any number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from models.graph import Normalise
from training.data.loader import ValidationFeed
from training.loop.distributed import World
from training.optim.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a network answered on the validation pictures that can be read, in order, on the CPU."""

    logits: torch.Tensor
    """float32 (N, classes)."""

    targets: torch.Tensor
    """int64 (N,)."""

    pictures: npt.NDArray[np.int64]
    """int64 (N,): which of the validation pictures they are."""


@torch.no_grad()
def answers(
    module: torch.nn.Module, normalise: Normalise, feed: ValidationFeed, precision: Precision, world: World
) -> Answers:
    """Ask the network about every validation picture; the same answers in every process.

    Args:
        module: the network; it is in evaluation mode afterwards.
        normalise: pixels to planes.
        feed: this process's share.
        precision: how to execute it.
        world: the processes among which the pictures are dealt.
    """
    module.eval()
    logits, targets = [], []
    for pixels, labels in feed:
        images = normalise(pixels.to(precision.device, non_blocking=True))
        with precision.autocast():
            output = module(images.contiguous(memory_format=precision.memory_format))
        logits.append(output.float())
        targets.append(labels.to(precision.device))
    # Each process knows of the broken pictures in its own share; their stand-ins' answers mean nothing.
    readable = ~world.union(feed.pictures.broken())
    count = len(readable)
    return Answers(
        logits=world.gather(torch.cat(logits), count).cpu()[readable],
        targets=world.gather(torch.cat(targets), count).cpu()[readable],
        pictures=np.flatnonzero(readable.numpy()),
    )


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
