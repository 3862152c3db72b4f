"""Looks at the bundles from time to time and loads what has changed (HALFTONE_WATCH)."""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.http.errors import RequestError
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.registry import Registry

logger = logging.getLogger("bentoml.halftone")


class _State(NamedTuple):
    """What a look finds: a copy may write the manifest before the files that it lists."""

    manifest: Manifest
    files: tuple[tuple[str, int, int], ...]


class Watcher:
    """One thread for all models.

    An export changes a bundle several times: a change counts when the bundle is the same at two looks. What was refused
    is tried again after the next change; what was rolled back stays so until then.

    Args:
        models: what is served.
        swaps: replaces models.
        seconds: between two looks.
    """

    def __init__(self, models: Registry, swaps: HotSwap, seconds: float) -> None:
        self._models = models
        self._swaps = swaps
        self._seconds = seconds
        self._stopped = threading.Event()
        # What is served now is what was read at the start: nothing of it is news.
        self._first = {model.name: model.manifest for model in models.all()}
        self._refused: dict[str, _State] = {}
        self._seen: dict[str, _State | None] = {}

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Look no more; a swap that has begun goes on."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            for name in self._models.names:
                try:
                    self.look(name)
                except Exception:
                    # The thread must live on.
                    logger.exception("failed to watch %s", name)

    def look(self, name: str) -> None:
        """Load the model anew where its bundle has changed and was the same at the look before."""
        state = _state(name)
        steady = state is not None and state == self._seen.get(name)
        self._seen[name] = state
        if state is None or not steady or state == self._refused.get(name):
            return
        if state.manifest == (self._swaps.last(name) or self._first.get(name)):
            return
        try:
            self._swaps.load(name)
        except RequestError as error:
            # A swap that runs, or memory that is short, is no fault of the bundle.
            if error.status == 422:
                self._refused[name] = state


def _state(name: str) -> _State | None:
    """None of a bundle in the making; a folder that is gone is no reason to serve nothing."""
    try:
        bundle = open_bundle(name)
        return _State(bundle.manifest, tuple(_file(bundle, each) for each in bundle.manifest.files))
    except (HalftoneError, OSError):
        return None


def _file(bundle: Bundle, name: str) -> tuple[str, int, int]:
    status = bundle.locate(name).stat()
    return name, status.st_size, status.st_mtime_ns
