"""Poll the bundles for changes and load those that changed (HALFTONE_WATCH)."""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple

from models.bundle.bundle import Bundle
from models.bundle.errors import OutsideError, SymlinkError
from models.bundle.manifest import Manifest
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.http.errors import RequestError
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.registry import Registry

logger = logging.getLogger("bentoml.halftone")


class _Snapshot(NamedTuple):
    """State of a bundle's folder, with its files: a copy may write the manifest before the files that it lists."""

    manifest: Manifest
    files: tuple[tuple[str, int, int], ...]


class Watcher:
    """One polling thread for all models.

    An export changes a bundle several times, so a change counts once the bundle is the same at two polls in a row. A
    refused bundle is loaded again only after its next change, and a rollback stays in force until then.

    Args:
        models: the models of the service.
        hot_swap: replaces models.
        seconds: time between two polls.
    """

    def __init__(self, models: Registry, hot_swap: HotSwap, seconds: float) -> None:
        self._models = models
        self._hot_swap = hot_swap
        self._seconds = seconds
        # The models loaded at the start are not a change.
        self._initial = {model.name: model.manifest for model in models.all()}
        self._refused: dict[str, _Snapshot] = {}
        self._last_seen: dict[str, _Snapshot | None] = {}
        self._unsafe: dict[str, str] = {}

    def start(self) -> None:
        """Start to poll."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self._seconds)
            for name in self._models.names:
                try:
                    self.poll(name)
                except Exception:
                    # The thread must survive it.
                    logger.exception("failed to watch %s", name)

    def poll(self, name: str) -> None:
        """Load the model if its bundle has changed and was the same at the last poll."""
        snapshot = self._snapshot(name)
        steady = snapshot is not None and snapshot == self._last_seen.get(name)
        self._last_seen[name] = snapshot
        if snapshot is None or not steady or snapshot == self._refused.get(name):
            return
        if snapshot.manifest == (self._hot_swap.last_loaded(name) or self._initial.get(name)):
            return
        try:
            self._hot_swap.load(name)
        except RequestError as error:
            # A swap that runs, or a lack of memory, is no fault of the bundle.
            if error.status == 422:
                self._refused[name] = snapshot

    def _snapshot(self, name: str) -> _Snapshot | None:
        """Return the state of a bundle's folder; None while it is incomplete or missing, which changes nothing."""
        try:
            bundle = open_bundle(name)
            return _Snapshot(bundle.manifest, tuple(_file(bundle, each) for each in bundle.manifest.files))
        except (OutsideError, SymlinkError) as error:
            # No copy that is under way looks like this.
            if self._unsafe.get(name) != str(error):
                self._unsafe[name] = str(error)
                logger.warning("%s keeps serving what it has: %s", name, error)
        except (HalftoneError, OSError):
            pass
        return None


def _file(bundle: Bundle, name: str) -> tuple[str, int, int]:
    status = bundle.locate(name).stat()
    return name, status.st_size, status.st_mtime_ns
