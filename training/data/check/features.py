"""Frozen features: what a network that was pretrained on other images makes of an image, without any training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d

from models.catalog import architecture
from models.checkpoint import build, load_embedded
from models.graph import Normalise
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit

BATCH = 32

NETWORK = "efficientnet_lite0"
"""Its weights come with a package."""

SIZE = 128
"""Side of its input in pixels; at 224 the features would cost three times as much."""

CELLS = 4
"""Cells per side over which the features of the early stages are averaged: they see details, which have a place."""

COMPONENTS = 100
"""Most principal components that are kept of the features."""


class Extractor:
    """Features of images that are given one by one: the means of the early stages over a grid, and the head's input.

    On photographs the head's input would do. Details of small and of drawn images are in the early stages.
    """

    def __init__(self) -> None:
        network = architecture(NETWORK)
        self._module: Any = build(network, classes=1000)
        load_embedded(self._module, network)
        self._spec = replace(network.input, size=SIZE, crop_fraction=1.0)
        self._normalise = Normalise(self._spec)
        self._waiting: list[Pixels] = []
        # Half precision: a picture takes 9 kB.
        self._found: list[torch.Tensor] = []

    def add(self, pixels: Pixels) -> None:
        """Take uint8 RGB (H, W, 3)."""
        self._waiting.append(fit(pixels, self._spec))
        if len(self._waiting) == BATCH:
            self._compute()

    def components(self) -> npt.NDArray[np.float32]:
        """Return the principal components of the standardised features, float32 (N, K), for N images in their order."""
        if self._waiting:
            self._compute()
        return principal_components(torch.cat(self._found).float()) if self._found else np.zeros((0, 1), np.float32)

    @torch.no_grad()
    def _compute(self) -> None:
        planes = self._normalise(torch.tensor(np.stack(self._waiting)))
        last, stages = self._module.forward_intermediates(planes)
        cells = [adaptive_avg_pool2d(stage, CELLS).flatten(1) for stage in stages[:-1]]
        head = self._module.forward_head(last, pre_logits=True)
        self._found.append(torch.cat([*cells, head], dim=1).half())
        self._waiting.clear()


def principal_components(features: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return the first components, at most a quarter as many as images, of features scaled to the same spread.

    Args:
        features: float32 (N, F); it is overwritten.
    """
    # In place: of 70,000 images, these are 1.2 GB.
    scaled = features.sub_(features.mean(dim=0)).div_(features.std(dim=0, correction=0).clamp(min=1e-6))
    count = max(1, min(COMPONENTS, len(scaled) // 4))
    with torch.random.fork_rng(devices=[]):
        # Its random start is the same each time.
        torch.manual_seed(0)
        left, sizes, _ = torch.svd_lowrank(scaled, q=min(count + 10, *scaled.shape), niter=4)
    return (left * sizes)[:, :count].numpy()
