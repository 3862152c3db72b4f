"""BentoML's adaptive batching: `batchable=True` over uploaded files, batches of at most 8.

A worker runs one batch at a time. PEER_THREADS is the number of threads that decode a batch, and of cores that run it;
PEER_WORKERS is the number of workers, each with one core.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from loadtest.peers.shared import Model, threads

MAX_BATCH = 8
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))


@bentoml.service(workers=WORKERS, traffic={"timeout": 60})
class Batchable:
    """Takes a list of files a request; BentoML joins the lists of several requests."""

    def __init__(self) -> None:
        self.model = Model(cores=threads())
        self.pool = ThreadPoolExecutor(threads())

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)  # type: ignore[untyped-decorator]
    def classify(self, images: list[Path]) -> list[dict[str, Any]]:
        """Classify the pictures together."""
        pixels = np.stack(list(self.pool.map(lambda image: self.model.pixels(image.read_bytes()), images)))
        return [self.model.answer(row) for row in self.model.run(pixels)]
