"""MLServer with adaptive batching (8), one inference process a core: `python -m loadtest.peers.mlserver_app PORT`."""

from __future__ import annotations

import asyncio
import socket
import sys

import mlserver
import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from loadtest.peers.shared import Model, threads

MAX_BATCH = 8
BATCH_SECONDS = 0.002
IMPLEMENTATION = "loadtest.peers.mlserver_app.Classify"
"""By name, since the inference processes import it."""


class Classify(mlserver.MLModel):
    """Open Inference Protocol: base64 pictures of shape (N, 1) in, class indices (N, 1) out."""

    async def load(self) -> bool:
        """Load the model in the inference process."""
        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classify a batch."""
        pixels = np.stack([self.model.pixels(picture) for picture in Base64Codec.decode_input(payload.inputs[0])])
        indices = self.model.run(pixels).argmax(axis=1)[:, np.newaxis]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("index", indices)])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _serve(port: int) -> None:
    settings = mlserver.Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=_free_port(),
        metrics_port=_free_port(),
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
