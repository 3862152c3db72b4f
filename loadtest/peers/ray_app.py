"""Ray Serve with `@serve.batch` (8), one replica a core: `python -m loadtest.peers.ray_app PORT`."""

from __future__ import annotations

import signal
import sys
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from loadtest.peers.shared import Model, threads

MAX_BATCH = 8
BATCH_SECONDS = 0.002


@serve.deployment(num_replicas=threads(), max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Classify:
    """Takes the picture as the body."""

    def __init__(self) -> None:
        self.model = Model()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_SECONDS)
    async def classify(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return self.model.classify_batch(pictures)

    async def __call__(self, request: Request) -> Any:
        """Respond to one request."""
        return await self.classify(await request.body())


if __name__ == "__main__":
    ray.init(
        num_cpus=threads() + 1, include_dashboard=False, _node_ip_address="127.0.0.1", object_store_memory=200 * 2**20
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classify.bind(), route_prefix="/classify")  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
