"""Triton Inference Server's core through nvidia-pytriton, dynamic batching (8), one instance a core.

`python -m loadtest.peers.triton_app PORT` serves it.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from loadtest.peers.shared import Model, free_port, threads

MAX_BATCH = 8
BATCH_MICROSECONDS = 2000

model = Model(threads())


@batch
def classify(image: npt.NDArray[np.object_]) -> dict[str, npt.NDArray[np.int64]]:
    """Map pictures as bytes (N, 1) to class indices (N, 1)."""
    pixels = np.stack([model.pixels(picture) for (picture,) in image])
    return {"index": model.run(pixels).argmax(axis=1)[:, np.newaxis].astype(np.int64)}


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(sys.argv[1]),
        grpc_address="127.0.0.1",
        grpc_port=free_port(),
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="peer",
            infer_func=[classify] * threads(),
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="index", dtype=np.int64, shape=(1,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=BATCH_MICROSECONDS)
            ),
        )
        triton.serve()
