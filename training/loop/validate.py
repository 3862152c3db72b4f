"""Validation of a network during training, for any number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

from training.data.batches.loader import ValidationBatches
from training.loop.distributed import World
from training.optim.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Logits of the readable validation images, in order, on the CPU."""

    logits: torch.Tensor
    """float32 (N, classes)."""

    targets: torch.Tensor
    """int64 (N,)."""

    pictures: npt.NDArray[np.int64]
    """int64 (N,): indices of these images in the validation set."""


@torch.no_grad()
def validate(
    module: torch.nn.Module, normalise: torch.nn.Module, feed: ValidationBatches, precision: Precision, world: World
) -> Predictions:
    """Run the network on every validation image; the result is the same in every process.

    Args:
        module: the network; it is in evaluation mode afterwards.
        normalise: converts what the batches hold to the network's input.
        feed: this process's share of the images.
        precision: number format, device and memory format.
        world: the processes that share the images.
    """
    module.eval()
    logits, targets = [], []
    for pixels, labels in feed:
        images = normalise(pixels.to(precision.device, non_blocking=True))
        with precision.autocast():
            output = module(images.contiguous(memory_format=precision.memory_format))
        logits.append(output.float())
        targets.append(labels.to(precision.device))
    # Each process knows the broken images of its own share; the predictions for their stand-ins are meaningless.
    readable = ~world.union(feed.pictures.broken())
    count = len(readable)
    return Predictions(
        logits=world.gather(torch.cat(logits), count).cpu()[readable],
        targets=world.gather(torch.cat(targets), count).cpu()[readable],
        pictures=np.flatnonzero(readable.numpy()),
    )


def validation_metrics(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Return `val_loss` (mean cross entropy in nats), `val_top1` and `val_top5` (shares in [0, 1]).

    With fewer than five classes, `val_top5` counts all of them.

    Args:
        logits: float32 (N, classes).
        targets: int64 (N,).
    """
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranked == targets[:, None]
    return {
        # The loss of certain and right predictions is -0.
        "val_loss": abs(float(cross_entropy(logits, targets))),
        "val_top1": float(hits[:, 0].double().mean()),
        "val_top5": float(hits.any(dim=1).double().mean()),
    }
