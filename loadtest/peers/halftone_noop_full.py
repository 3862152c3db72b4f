"""Our whole service with a model that answers a constant: HTTP, metrics, request log, queue and threads.

Only decoding and the engine are left out: a body goes to the threads as it came.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from typing import Any

import bentoml
import numpy as np

from loadtest.peers.halftone_noop import API, SETTINGS, NoModel, wrapped
from loadtest.peers.shared import threads
from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo
from serving.http.errors import RequestError
from serving.lifecycle.predictions import Prediction, best
from serving.process.bentoml_compat import fronted
from serving.telemetry.request_log import RequestLog

LOG = RequestLog(SETTINGS.log_format)


class Queued(NoModel):
    """The service's queue and threads in front of constant logits."""

    def __init__(self) -> None:
        super().__init__()
        logits = np.zeros(len(self.manifest.labels), np.float32)
        logits[0] = 9
        self._telemetry = API.recorder.model(self.name, self.version, self.variant)
        self._batcher = Batcher(
            lambda items: [logits] * len(items),
            sizes=AlwaysUpTo(1),
            threads=threads(),
            streams=threads(),
            capacity=SETTINGS.queue,
            observer=self._telemetry,
        )

    async def classify(
        self, images: Sequence[bytes], top_k: int, *, seconds: float
    ) -> list[list[Prediction] | RequestError]:
        """The classes of the constant logits for each picture."""
        finish = best(self.manifest, top_k)
        trace = self._telemetry.begin(len(images))
        return await self._batcher.submit(images, seconds=seconds, finish=finish, trace=trace)

    def check_room(self, seconds: float) -> None:
        """Whether the queue would take a picture."""
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
    service_class=fronted(partial(wrapped, log=LOG)),
)
class Noop:
    """What `serving.service` is, without decoding and an engine."""

    def __init__(self) -> None:
        API.models.publish(Queued())
        gc.collect()
        gc.freeze()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def classify(self, top_k: int = 1) -> dict[str, Any]:
        """Gives BentoML's application the path; over HTTP the gateway answers it."""
        return await API.classify([b""], top_k)
