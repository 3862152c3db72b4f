"""Looks at the bundles' manifests from time to time and loads what has changed (HALFTONE_WATCH)."""

from __future__ import annotations

import logging
import threading

from models.errors import HalftoneError
from models.manifest import Manifest
from models.store import open_bundle
from serving.admin.swaps import Swaps
from serving.errors import RequestError
from serving.registry import Registry

logger = logging.getLogger("bentoml.halftone")


class Watch:
    """One thread for all models.

    An export changes a manifest several times: a change counts when the manifest is the same at two looks. What was
    refused is tried again after the next change; what was rolled back stays so until then.

    Args:
        models: what is served.
        swaps: replaces models.
        seconds: between two looks.
    """

    def __init__(self, models: Registry, swaps: Swaps, seconds: float) -> None:
        self._models = models
        self._swaps = swaps
        self._seconds = seconds
        self._stopped = threading.Event()
        # What is served now is what was read at the start: nothing of it is news.
        self._handled = {model.name: model.manifest for model in models.all()}
        self._seen: dict[str, Manifest | None] = {}

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
        """Load the model anew where its manifest has changed and was the same at the look before."""
        try:
            manifest = open_bundle(name).manifest
        except HalftoneError:
            # A bundle in the making; a folder that is gone is no reason to serve nothing.
            manifest = None
        steady = manifest is not None and manifest == self._seen.get(name)
        self._seen[name] = manifest
        if manifest is None or not steady or manifest == self._handled.get(name):
            return
        self._handled[name] = manifest
        if any((model.name, model.bundle, model.manifest) == (name, name, manifest) for model in self._models.all()):
            return
        try:
            self._swaps.load(name)
        except RequestError as error:
            if error.code == "swap_running":
                del self._handled[name]
