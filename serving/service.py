"""The BentoML service: `bentoml serve` from the repository's root, or `HALFTONE_MODEL=NAME bentoml serve`.

BentoML starts and supervises the process, and contributes metrics, tracing and its Python client; requests are
answered by `serving.api.app`. What can be set is in `serving.settings`.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn, TypeVar

# Before the import, which would otherwise report the start of every server.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml
from bentoml._internal.context import server_context

from models.bundle.store import open_bundle
from models.common.cli import WRONG_REQUEST
from models.common.errors import HalftoneError
from serving.api.app import Api
from serving.api.gateway import BENTOML_FOLDERS, BENTOML_PATHS, ASGIApp, Gateway
from serving.api.upload import DEFAULT_TOP_K
from serving.bento import find_bundles
from serving.http.connections import install
from serving.lifecycle.loading import load_model
from serving.lifecycle.selection import check_bundle
from serving.process.acceptor import ConnectionShare
from serving.process.bentoml_compat import fronted
from serving.process.memory import settle
from serving.process.signals import is_successor, tell_ready
from serving.process.startup_errors import end_worker
from serving.process.worker_table import FOLDER, WorkerSlot, joined
from serving.settings import Settings
from serving.telemetry.middleware import Monitor, Routes
from serving.telemetry.request_log import RequestLog, configure
from serving.telemetry.tracing import check_tracing, traced, tracing_options

Value = TypeVar("Value")

NAME = "halftone"
ADDRESSES = "BENTOML_RUNNER_MAP"
"""Set by `bentoml serve` in its workers: service name to URL, as JSON."""

logger = logging.getLogger("bentoml.halftone")


def _or_exit(work: Callable[[], Value]) -> Value:
    """The result of `work`; a user's mistake ends the process with one line instead of a traceback."""
    try:
        return work()
    except HalftoneError as error:
        _exit(error)


def _exit(error: HalftoneError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(WRONG_REQUEST)


find_bundles()
SETTINGS = _or_exit(Settings.from_environment)
API = Api(SETTINGS)
install(SETTINGS, API.recorder.rejected)
LOG = RequestLog(SETTINGS.log_format) if SETTINGS.log_requests else None


def _whole(app: ASGIApp) -> ASGIApp:
    """What the server calls: our API in front of BentoML's application, observed."""
    routes = Routes([*API.paths, *BENTOML_PATHS], BENTOML_FOLDERS)
    monitored = Monitor(Gateway(app, API), recorder=API.recorder, routes=routes, log=LOG)
    return traced(monitored, SETTINGS, API.recorder)


def _worker() -> int:
    """Number of this worker among those of the service, from 1 on."""
    return server_context.worker_index or 1


@functools.cache
def _member() -> WorkerSlot | None:
    """This worker's place among the others; None where it has no supervisor of ours."""
    return joined(_worker(), SETTINGS.workers)


def _share() -> ConnectionShare | None:
    """This worker's share of the connections, where there are several workers."""
    member = _member()
    return ConnectionShare(member, loaded=lambda: API.models.loaded) if member and SETTINGS.workers > 1 else None


# The time-out of BentoML is a backstop: the service's own, shorter ones answer first and say what to do.
# Its metrics and access log are off: the ones of `serving.telemetry` say more and cost less, and BentoML's metrics take
# whatever path a client invents for a label.
@bentoml.service(
    name=NAME,
    workers=SETTINGS.workers,
    traffic={"timeout": 600},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing=tracing_options(SETTINGS),
    service_class=fronted(_whole, retire=API.retire, lame_duck=SETTINGS.lame_duck, share=_share),
)
class HalftoneService:
    """Loads the models in the background, so that /livez answers at once and /readyz when they are warmed."""

    def __init__(self) -> None:
        configure(SETTINGS.log_format)
        if is_successor() or _worker() > 1:
            # This worker isn't listening yet: who asks waits for a second or two, or is answered by another one, where
            # a listening worker would answer 503.
            _load()
        else:
            threading.Thread(target=_load, name="loader", daemon=True).start()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def verify() -> None:
        """Refuse to start without proven bundles: one line, before any worker is started. Called in the supervisor."""
        # Imported here: no worker needs circus.
        from serving.process import supervisor

        supervisor.install()
        for name in SETTINGS.models:
            _or_exit(lambda name=name: check_bundle(name, open_bundle(name), SETTINGS))  # type: ignore[misc]
        _or_exit(lambda: check_tracing(SETTINGS))

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Finish what was accepted."""
        API.close()
        if LOG is not None:
            LOG.close()

    # These two give BentoML's Python client and schema their names; over HTTP the gateway answers the same paths.
    @bentoml.api  # type: ignore[untyped-decorator]
    async def classify(
        self, image: Path, top_k: int = DEFAULT_TOP_K, model: str = SETTINGS.models[0]
    ) -> dict[str, Any]:
        """Classify one JPEG, PNG or WebP picture."""
        return await API.classify([image.read_bytes()], top_k, model)

    @bentoml.api  # type: ignore[untyped-decorator]
    async def classify_batch(
        self, images: list[Path], top_k: int = DEFAULT_TOP_K, model: str = SETTINGS.models[0]
    ) -> dict[str, Any]:
        """Classify several pictures; a bad one is an error in its own slot."""
        return await API.classify_batch([image.read_bytes() for image in images], top_k, model)


def _load() -> None:
    _share_metrics()
    for name in SETTINGS.models:
        try:
            API.models.publish(load_model(name, SETTINGS, API.recorder, API.decoders))
        except Exception as error:
            end_worker(name, error)
    settle()
    API.watch()
    if member := _member():
        member.answers()
    tell_ready()
    _announce()


def _share_metrics() -> None:
    """Show the metrics of all workers, where there are several."""
    if SETTINGS.workers < 2 or FOLDER not in os.environ:
        return
    try:
        API.recorder.join(Path(os.environ[FOLDER]), _worker())
    except OSError as error:
        logger.warning("each worker shows its own metrics only: %s", error)


def _announce() -> None:
    for model in API.models.all():
        logger.info("ready: %s %s (%s)", model.name, model.version, model.variant)
    url = json.loads(os.environ.get(ADDRESSES, "{}")).get(NAME)
    if url and SETTINGS.log_format == "text" and _worker() == 1:
        photo = Path(str(files("export") / "photos" / "cat.jpg"))
        if photo.is_relative_to(Path.cwd()):
            photo = photo.relative_to(Path.cwd())
        print(f"\n  try it:  curl -F image=@{photo} {url}/classify\n  or open  {url}/ui\n", flush=True)
