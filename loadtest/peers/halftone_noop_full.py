"""Our whole service with constant predictions: HTTP, metrics, request log, queue and threads.

Only decoding and the engine are left out: a body reaches the threads as it arrived. With PEER_WAIT_MS each picture
keeps a thread for so long, as an engine on a core of its own would.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import bentoml
import numpy as np

from loadtest.peers.halftone_noop import API, LIMITED, SETTINGS, NoModel, wrapped
from loadtest.peers.shared import threads
from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo
from serving.http.errors import RequestError
from serving.lifecycle.predictions import Members, answers
from serving.process import shutdown
from serving.process.bentoml_compat import service_class
from serving.telemetry.request_log import RequestLog

WAIT_SECONDS = float(os.environ.get("PEER_WAIT_MS", "0")) / 1000
LOG = RequestLog(SETTINGS.log_format)


class Queued(NoModel):
    """The service's queue and threads before constant logits."""

    def __init__(self) -> None:
        super().__init__()
        logits = np.zeros(len(self.manifest.labels), np.float32)
        logits[0] = 9
        self._telemetry = API.recorder.model(self.name, self.version, self.variant)

        def run(items: Sequence[bytes]) -> list[Any]:
            if WAIT_SECONDS:
                time.sleep(WAIT_SECONDS * len(items))
            return [logits] * len(items)

        self._batcher = Batcher(
            run,
            sizes=AlwaysUpTo(1),
            threads=threads(),
            streams=threads(),
            capacity=SETTINGS.queue,
            observer=self._telemetry,
        )

    async def classify(
        self, images: Sequence[bytes], top_k: int, *, seconds: float, coverage: float | None = None
    ) -> list[Members | RequestError]:
        """Return the classes of the constant logits for each picture."""
        finish = answers(self.manifest, top_k, None)
        trace = self._telemetry.begin(len(images))
        return await self._batcher.submit(images, seconds=seconds, finish=finish, trace=trace)

    def check_room(self, seconds: float) -> None:
        """Raise RequestError if the queue would not take a picture."""
        self._batcher.check_room(seconds)

    def close(self) -> None:
        """End the threads."""
        self._batcher.close()


@bentoml.service(
    name="noop-full",
    workers=1,
    traffic={"timeout": 600},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    service_class=service_class(
        partial(wrapped, log=LOG), install_server=partial(shutdown.install, connection=LIMITED)
    ),
)
class Noop:
    """Counterpart of `serving.service` without decoding and an engine."""

    def __init__(self) -> None:
        API.models.publish(Queued())
        gc.collect()
        gc.freeze()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def classify(self, top_k: int = 1) -> dict[str, Any]:
        """Give BentoML's application the path; over HTTP the gateway serves it."""
        return await API.classify([b""], top_k)
