"""Our service's HTTP side under BentoML with a model that answers a constant: no decoding, no queue, no engine."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import bentoml

from models.bundle.store import DEFAULT_MODEL, open_bundle
from serving.api.app import Api
from serving.api.gateway import BENTOML_FOLDERS, BENTOML_PATHS, ASGIApp, Gateway
from serving.http.connections import install
from serving.http.errors import RequestError
from serving.lifecycle.predictions import Prediction
from serving.lifecycle.served_model import ServedModel
from serving.process.bentoml_compat import fronted
from serving.settings import Settings
from serving.telemetry.middleware import Monitor, Routes
from serving.telemetry.request_log import RequestLog


class NoModel(ServedModel):
    """Answers at once. Labels and version are those of the default bundle."""

    def __init__(self) -> None:
        self.name = DEFAULT_MODEL
        self.manifest = open_bundle(DEFAULT_MODEL).manifest
        self.version = self.manifest.version
        self.variant = "none"

    async def classify(
        self, images: Sequence[bytes], top_k: int, *, seconds: float
    ) -> list[list[Prediction] | RequestError]:
        """The constant for each picture."""
        return [[Prediction(label="nothing", index=0, probability=1.0)] for _ in images]

    def check_room(self, seconds: float) -> None:
        """There is always room."""

    def announce(self) -> None:
        """It has no metrics."""

    def close(self) -> None:
        """There is nothing to end."""


SETTINGS = Settings()
API = Api(SETTINGS)
install(SETTINGS, API.recorder.rejected)


def wrapped(app: ASGIApp, log: RequestLog | None = None) -> ASGIApp:
    """The service's HTTP side and metrics around BentoML's application."""
    routes = Routes([*API.paths, *BENTOML_PATHS], BENTOML_FOLDERS)
    return Monitor(Gateway(app, API), recorder=API.recorder, routes=routes, log=log)


@bentoml.service(
    name="noop",
    workers=1,
    traffic={"timeout": 600},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    service_class=fronted(wrapped),
)
class Noop:
    """What `serving.service` is, without a model."""

    def __init__(self) -> None:
        API.models.publish(NoModel())
        gc.collect()
        gc.freeze()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def classify(self, top_k: int = 1) -> dict[str, Any]:
        """Gives BentoML's application the path; over HTTP the gateway answers it."""
        return await API.classify([b""], top_k)
