"""Predictions of a trained bundle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.markup import escape
from rich.progress import Progress

from models.bundle.bundle import Bundle
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.graph import ServingGraph
from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from models.preprocess.transform import load
from models.spec import InputSpec
from training.data.augment import EvaluationView
from training.data.batches.loader import ValidationFeed
from training.data.dataset import PictureSet
from training.data.pictures import Pictures

Logits = npt.NDArray[np.float32]


@torch.inference_mode()
def predict(
    bundle: Bundle,
    pictures: Pictures,
    *,
    batch: int,
    workers: int,
    device: torch.device,
    max_corrupt_share: float,
    progress: Progress,
) -> tuple[Logits, npt.NDArray[np.bool_]]:
    """Return the logits of the model for labelled images.

    Args:
        bundle: the model; it must have the classes of `pictures`.
        pictures: the images.
        batch: images per forward pass.
        workers: processes that read them.
        device: device of the network.
        max_corrupt_share: largest allowed share of unreadable images.
        progress: shows the progress.

    Returns:
        float32 (N, C) with columns in the order of `pictures.labels`, and bool (N,): True for a readable image. The
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
    return np.concatenate(logits)[:, order], readable


@torch.inference_mode()
def predict_files(bundle: Bundle, paths: Sequence[Path], *, batch: int, device: torch.device) -> Logits:
    """Return the logits float32 (N, C) of the model for image files, in the order of its own labels.

    Args:
        bundle: the model.
        paths: the files; those that can't be decoded are left out.
        batch: images per forward pass.
        device: device of the network.

    Raises:
        HalftoneError: none of the files can be decoded.
    """
    spec = bundle.manifest.input
    graph = ServingGraph(load_module(bundle), spec).eval().to(device)
    readable = iter(_readable(paths, spec))
    logits = [
        graph(torch.from_numpy(np.stack(part)).to(device)).cpu().numpy()
        for part in iter(lambda: list(islice(readable, batch)), [])
    ]
    if not logits:
        raise HalftoneError("none of the foreign pictures can be read: name a folder of JPEG, PNG or WebP files")
    return np.concatenate(logits)


def _readable(paths: Sequence[Path], spec: InputSpec) -> Iterator[Pixels]:
    for path in paths:
        with contextlib.suppress(ImageError):
            yield load(path.read_bytes(), spec)
