"""MLServer with adaptive batching (8), one inference process a core: `python -m loadtest.peers.mlserver_app PORT`."""

from __future__ import annotations

import asyncio
import sys

import mlserver
import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtest.peers.shared import Model, free_port, threads

MAX_BATCH = 8
BATCH_SECONDS = 0.002
IMPLEMENTATION = "loadtest.peers.mlserver_app.Classify"
"""Name under which the inference processes import the model."""


class Classify(mlserver.MLModel):
    """Maps base64 pictures of shape (N, 1) to class indices (N, 1), over the Open Inference Protocol."""

    async def load(self) -> bool:
        """Load the model in the inference process."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classify a batch."""
        pixels = np.stack([self.model.pixels(picture) for picture in Base64Codec.decode_input(payload.inputs[0])])
        indices = self.model.run(pixels).argmax(axis=1)[:, np.newaxis]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("index", indices)])


async def _serve(port: int) -> None:
    settings = mlserver.Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=free_port(),
        metrics_port=free_port(),
        parallel_workers=threads(),
        debug=False,
    )
    model = mlserver.ModelSettings(
        name="peer", implementation=IMPLEMENTATION, max_batch_size=MAX_BATCH, max_batch_time=BATCH_SECONDS
    )
    server = mlserver.MLServer(settings)
    await server.start([model])


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
