"""BentoML's adaptive batching: `batchable=True` over PIL pictures, batches of at most 8."""

from __future__ import annotations

from typing import Any

import bentoml
import numpy as np
from PIL import Image

from loadtest.peers.shared import Model, threads
from models.preprocess import fit

MAX_BATCH = 8


@bentoml.service(threads=threads(), traffic={"timeout": 60})
class Batchable:
    """A list of pictures a request; BentoML joins the lists of several requests."""

    def __init__(self) -> None:
        self.model = Model(threads())

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)  # type: ignore[untyped-decorator]
    def classify(self, images: list[Image.Image]) -> list[dict[str, Any]]:
        """Classify the pictures together."""
        spec = self.model.bundle.manifest.input
        pixels = np.stack([fit(np.asarray(image.convert("RGB")), spec) for image in images])
        return [self.model.answer(row) for row in self.model.run(pixels)]
