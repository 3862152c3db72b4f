"""Our service's HTTP side under BentoML with constant predictions: no decoding, no queue, no engine."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import bentoml

from models.bundle.store import open_bundle
from serving.api.app import Api
from serving.api.gateway import BENTOML_PATHS, FOLDERS, Gateway
from serving.http.connections import with_limits
from serving.http.errors import RequestError
from serving.lifecycle.predictions import Members, Prediction
from serving.lifecycle.served_model import ServedModel
from serving.process import shutdown
from serving.process.bentoml_compat import service_class
from serving.settings import Settings
from serving.telemetry.middleware import Monitor, Routes
from serving.telemetry.request_log import RequestLog

if TYPE_CHECKING:
    from starlette.types import ASGIApp


class NoModel(ServedModel):
    """Returns constant predictions at once. Labels and version are those of the bundle that the service would serve."""

    def __init__(self) -> None:
        self.name = SETTINGS.model
        self.manifest = open_bundle(self.name).manifest
        self.version = self.manifest.version
        self.variant = "none"
        self.promises = None

    async def classify(
        self, images: Sequence[bytes], top_k: int, *, seconds: float, coverage: float | None = None
    ) -> list[Members | RequestError]:
        """Return the constant for each picture."""
        return [{"predictions": [Prediction(label="nothing", index=0, probability=1.0)]} for _ in images]

    def check_room(self, seconds: float) -> None:
        """Accept every picture."""

    def announce(self) -> None:
        """Publish nothing: there are no metrics of the model."""

    def close(self) -> None:
        """Do nothing: there are no threads."""


SETTINGS = Settings()
API = Api(SETTINGS)
LIMITED = with_limits(
    most=SETTINGS.connections,
    head_seconds=SETTINGS.header_timeout,
    body_seconds=SETTINGS.body_timeout,
    rejected=API.recorder.rejected,
)


def wrapped(app: ASGIApp, log: RequestLog | None = None) -> ASGIApp:
    """Return the service's HTTP side and metrics around BentoML's application."""
    routes = Routes([*API.paths, *BENTOML_PATHS], FOLDERS)
    return Monitor(Gateway(app, API), recorder=API.recorder, routes=routes, log=log)


@bentoml.service(
    name="noop",
    workers=1,
    traffic={"timeout": 600},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    service_class=service_class(wrapped, install_server=partial(shutdown.install, connection=LIMITED)),
)
class Noop:
    """Counterpart of `serving.service` without a model."""

    def __init__(self) -> None:
        API.models.publish(NoModel())
        gc.collect()
        gc.freeze()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def classify(self, top_k: int = 1) -> dict[str, Any]:
        """Give BentoML's application the path; over HTTP the gateway serves it."""
        return await API.classify([b""], top_k)
