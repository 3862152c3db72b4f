"""The BentoML service: `bentoml serve` from the repository's root, or `HALFTONE_MODEL=NAME bentoml serve`.

BentoML starts the processes and contributes tracing and its Python client; `serving.api.app` handles the requests.
`serving.settings` has the settings.
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
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

# Before the import, which would otherwise report the start of every server.
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml

from models.bundle.store import artifacts, open_bundle
from models.common.cli import WRONG_REQUEST
from models.common.errors import HalftoneError
from models.common.memory import release_memory
from models.common.text import line
from serving.api.app import Api
from serving.api.gateway import BENTOML_PATHS, FOLDERS, Gateway
from serving.api.upload import DEFAULT_TOP_K
from serving.bento import find_bundles, version
from serving.collect.store import make_folder
from serving.http.connections import with_limits
from serving.http.cors import allow_origins
from serving.http.json_body import MAX_DIGITS
from serving.lifecycle.loading import load_model
from serving.lifecycle.selection import check_bundle
from serving.process import lifeline
from serving.process.acceptor import ConnectionShare
from serving.process.bentoml_compat import (
    ADDRESSES,
    check_supervisor,
    check_worker,
    service_class,
    tracer_provider,
    worker_number,
)
from serving.process.open_files import check_open_files
from serving.process.signals import is_successor, notify_ready
from serving.process.startup_errors import end_worker
from serving.process.worker_table import FOLDER, WorkerSlot, attach
from serving.settings import Settings
from serving.telemetry.library_warnings import log_warnings
from serving.telemetry.middleware import Monitor, Routes
from serving.telemetry.request_log import RequestLog, configure, report
from serving.telemetry.tracing import check_exporter, traced, tracing_options

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Value = TypeVar("Value")

NAME = "halftone"


logger = logging.getLogger("bentoml.halftone")


def _or_exit(work: Callable[[], Value]) -> Value:
    """Return the result of `work`; if it raises a HalftoneError, print one line and end the process."""
    try:
        return work()
    except HalftoneError as error:
        _exit(error)


def _exit(error: HalftoneError) -> NoReturn:
    report("error", line(error))
    sys.exit(WRONG_REQUEST)


_or_exit(check_worker)
find_bundles()
SETTINGS = _or_exit(Settings.from_environment)
API = Api(SETTINGS)
_OTHERS = SETTINGS.decoder_processes + SETTINGS.workers
"""Processes to which a worker holds a connection: its decoders, and the other workers while it asks their metrics."""
LOG = RequestLog(SETTINGS.log_format) if SETTINGS.log_requests else None


def _wrap(app: ASGIApp) -> ASGIApp:
    """Return the application that the server calls: our API around BentoML's application, monitored and traced."""
    routes = Routes([*API.paths, *BENTOML_PATHS], FOLDERS)
    inner = allow_origins(Gateway(app, API), SETTINGS.origins)
    monitored = Monitor(inner, recorder=API.recorder, routes=routes, log=LOG)
    if not SETTINGS.trace_endpoint:
        return monitored
    return traced(monitored, API.recorder, tracer_provider(), share=SETTINGS.trace_sample)


@functools.cache
def _slot() -> WorkerSlot | None:
    """Return this worker's slot in the worker table; None without a supervisor of ours."""
    return attach(worker_number())


def _install_server() -> None:
    """Let BentoML's worker run our server; called in the worker."""
    # Imported here: only a worker needs uvicorn's server.
    from serving.process import shutdown

    sys.set_int_max_str_digits(MAX_DIGITS)
    slot = _slot() if SETTINGS.workers > 1 else None
    shutdown.install(
        connection=with_limits(
            most=SETTINGS.connections,
            head_seconds=SETTINGS.header_timeout,
            body_seconds=SETTINGS.body_timeout,
            rejected=API.recorder.rejected,
        ),
        retire=API.retire,
        lame_duck=SETTINGS.lame_duck,
        share=ConnectionShare(slot, loaded=lambda: API.models.loaded) if slot else None,
        others=_OTHERS,
    )


# BentoML's time-out is a backstop: the service's own, shorter ones end a request first and say what to do. Its metrics
# and access log are off: those of `serving.telemetry` have more and cost less, and BentoML's metrics use any path that
# a client sends as a label.
@bentoml.service(
    name=NAME,
    workers=SETTINGS.workers,
    traffic={"timeout": 600},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
    tracing=tracing_options(SETTINGS.trace_endpoint),
    service_class=service_class(_wrap, install_server=_install_server),
)
class HalftoneService:
    """Loads the models in the background: /livez is served at once, /readyz when they are warm."""

    def __init__(self) -> None:
        configure(SETTINGS.log_format)
        log_warnings()
        if LOG is not None:
            LOG.start()
        lifeline.watch(lambda: API.models.loaded)
        if is_successor() or worker_number() > 1:
            # This worker isn't listening yet: a client waits for a second or two, or another worker serves it. If this
            # worker listened, it would respond with 503.
            _load()
        else:
            threading.Thread(target=_load, name="loader", daemon=True).start()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def verify() -> None:
        """Refuse to start with unproven bundles: one line, before any worker is started. Called in the supervisor."""
        configure(SETTINGS.log_format)
        _or_exit(check_supervisor)
        _or_exit(lambda: check_open_files(SETTINGS.connections, _OTHERS))
        if SETTINGS.collect:
            _or_exit(lambda: make_folder(Path(SETTINGS.collect)))
        # Imported here: no worker needs circus.
        from serving.process.supervision import forked, handover

        if SETTINGS.trace_endpoint:
            _or_exit(check_exporter)
        forked.fork(SETTINGS.workers, _check_bundles)
        handover.install(artifacts().absolute(), guarded=bool(SETTINGS.api_keys))

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Finish the accepted requests and write the rest of the log."""
        API.close()
        if LOG is not None:
            LOG.close()

    # These two give BentoML's Python client and schema their names; over HTTP the gateway serves the same paths.
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


def _check_bundles() -> None:
    for name in SETTINGS.models:
        _or_exit(lambda name=name: check_bundle(name, open_bundle(name), SETTINGS))  # type: ignore[misc]


def _load() -> None:
    _prepare()
    _join_metrics()
    API.expect_refinement()
    for name in SETTINGS.models:
        try:
            API.models.publish(load_model(name, SETTINGS, API.recorder, API.decoders, collector=API.collector))
        except Exception as error:
            end_worker(name, error)
    release_memory()
    API.watch()
    API.collect()
    if slot := _slot():
        slot.mark_ready()
    notify_ready()
    _announce()
    API.refine()


def _prepare() -> None:
    """Import and read what responses need, so that no request finds that the process can open no further file."""
    API.recorder.exposition()
    version()


def _join_metrics() -> None:
    """Show the metrics of all workers if there are several."""
    if SETTINGS.workers < 2 or FOLDER not in os.environ:
        return
    try:
        API.recorder.join(Path(os.environ[FOLDER]), worker_number())
    except OSError as error:
        logger.warning("each worker shows only its own metrics: %s", error)


def _announce() -> None:
    for model in API.models.all():
        logger.info("ready: %s %s (%s)", model.name, model.version, model.variant)
    url = json.loads(os.environ.get(ADDRESSES, "{}")).get(NAME)
    if url and SETTINGS.log_format == "text" and worker_number() == 1:
        photo = Path(str(files("export") / "photos" / "cat.jpg"))
        # The worker may run in another folder than the shell that started the service.
        if os.environ.get("PWD") == str(Path.cwd()) and photo.is_relative_to(Path.cwd()):
            photo = photo.relative_to(Path.cwd())
        print(f"\n  try it:  curl -F image=@{photo} {url}/classify\n  or open  {url}/ui\n", flush=True)
