"""Predictions of a trained bundle for labelled images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from rich.markup import escape
from rich.progress import Progress

from models.bundle.bundle import Bundle
from models.checkpoint import load_module
from models.common.statistics import Probabilities, softmax
from models.graph import ServingGraph
from training.data.augment import EvaluationView
from training.data.dataset import PictureSet
from training.data.loader import ValidationFeed
from training.data.pictures import Pictures


@torch.inference_mode()
def probabilities(
    bundle: Bundle,
    pictures: Pictures,
    *,
    batch: int,
    workers: int,
    device: torch.device,
    max_corrupt_share: float,
    progress: Progress,
) -> tuple[Probabilities, npt.NDArray[np.bool_]]:
    """Return the calibrated probabilities of the model.

    Args:
        bundle: the model; it must have the classes of `pictures`.
        pictures: the images.
        batch: images per forward pass.
        workers: processes that read them.
        device: device of the network.
        max_corrupt_share: largest allowed share of unreadable images.
        progress: shows the progress.

    Returns:
        float64 (N, C) with columns in the order of `pictures.labels`, and bool (N,): True for a readable image. The
        rows of the others are meaningless.

    Raises:
        CorruptDataError: too many images can't be read.
    """
    manifest = bundle.manifest
    graph = ServingGraph(load_module(bundle), manifest.input).eval().to(device)
    dataset = PictureSet(pictures, EvaluationView(manifest.input), seed=0, max_corrupt_share=max_corrupt_share)
    task = progress.add_task(escape(manifest.name), total=len(pictures))
    logits = []
    for pixels, _ in ValidationFeed(dataset, batch=batch, workers=workers, pin=device.type == "cuda"):
        logits.append(graph(pixels.to(device)).cpu().numpy())
        progress.advance(task, len(pixels))
    readable = np.ones(len(pictures), dtype=bool)
    readable[dataset.broken().numpy()] = False
    order = [manifest.labels.index(label) for label in pictures.labels]
    return softmax(np.concatenate(logits)[:, order], manifest.temperature), readable
