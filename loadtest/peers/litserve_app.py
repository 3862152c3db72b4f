"""LitServe with dynamic batching (8), one worker process a core: `python -m loadtest.peers.litserve_app PORT`."""

# Without `from __future__ import annotations`: LitServe evaluates the annotation of decode_request.
import sys
from typing import Any

import litserve
from fastapi import Request

from loadtest.peers.shared import Model, threads

MAX_BATCH = 8
BATCH_SECONDS = 0.002


class Classify(litserve.LitAPI):
    """Takes the multipart field `request`, because LitServe takes JSON or forms."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.model = Model()

    def decode_request(self, request: Request) -> bytes:
        """Return the uploaded file's bytes."""
        return bytes(request["request"].file.read())

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Keep the pictures as a list, because they are stacked after decoding."""
        return inputs

    def predict(self, x: list[bytes]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return self.model.classify_batch(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return one response a request."""
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return the response, which is JSON-ready."""
        return output


if __name__ == "__main__":
    api = Classify(max_batch_size=MAX_BATCH, batch_timeout=BATCH_SECONDS, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=threads())
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
