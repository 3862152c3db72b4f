"""An API whose models are stand-ins, for tests of swaps."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle.bundle import Bundle
from serving.api.app import Api
from serving.http.errors import RequestError
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.served_model import ServedModel
from serving.settings import Settings
from serving.telemetry.recorder import Recorder
from tests.servers import PHOTOS
from tests.serving.stand_in import StandIn, stand_in_model

CAT = (PHOTOS / "cat.jpg").read_bytes()


class Factory:
    """Loads stand-ins whose versions are v1, v2, …, in place of `load_model`."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.made: list[ServedModel] = []
        self.held = threading.Event()
        self.held.set()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.recorder: Recorder | None = None
        self.folder: Path | None = None
        self.runtime: StandIn | None = None

    def __call__(self, name: str, *, bundle: str | None = None, replaces: ServedModel | None = None) -> ServedModel:
        self.entered.set()
        self.held.wait()
        if self.error is not None:
            raise self.error
        model = stand_in_model(self.artifacts, name, self.runtime or StandIn(), recorder=self.recorder)
        model.bundle = bundle or name
        if self.folder is not None:
            model.manifest = Bundle.open(self.folder).manifest
        model.version = f"v{len(self.made) + 1}"
        self.made.append(model)
        return model


@contextmanager
def service(load: Factory, *, keep: bool = True, first: StandIn | None = None) -> Iterator[tuple[Api, HotSwap]]:
    """Run an API with one model; yield it with its hot swap."""
    api = Api(Settings(model="first"))
    load.recorder = api.recorder
    model = load("first")
    if first is not None:
        model.runtime = first
    api.models.publish(model)
    try:
        yield api, HotSwap(api.models, load, api.recorder, keep=keep)
    finally:
        api.close()


def is_free(model: ServedModel) -> bool:
    """Return True if the memory of a model was freed."""
    return not hasattr(model, "runtime")


async def post(api: Api, path: str = "/classify", **kwargs: Any) -> httpx.Response:
    """Send a picture to the API, by default to /classify."""
    transport = httpx.ASGITransport(app=api)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.post(path, **{"content": CAT, **kwargs})


def version(api: Api) -> str:
    """Return the version of the active model."""
    return str(asyncio.run(post(api)).json()["version"])


def refused(work: Callable[[], object]) -> RequestError:
    """Return the error that a call raises."""
    with pytest.raises(RequestError) as caught:
        work()
    return caught.value
