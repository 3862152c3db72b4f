"""Replaces models while they serve: load, verify and warm beside the old one, flip, let the old one finish, free it.

The model that was replaced last stays loaded, so that a rollback takes no time and does not depend on a folder that
has been written over since; any older one is freed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from export.cuda.device import GpuLostError
from models.bundle.manifest import Manifest
from models.bundle.store import artifacts
from models.common.errors import HalftoneError
from serving.http.errors import RequestError, unavailable
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.process.memory import trim
from serving.process.startup_errors import exit_after_gpu_loss, is_memory
from serving.telemetry.recorder import Recorder

logger = logging.getLogger("bentoml.halftone")


class Load(Protocol):
    """As `serving.lifecycle.loading.load_model`, with the service's settings."""

    def __call__(self, name: str, *, bundle: str | None, replaces: ServedModel | None) -> ServedModel:
        """Open, choose, warm and measure."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """One model in another's place."""

    model: ServedModel
    """What answers now."""

    replaced: ServedModel
    """What answered before."""

    seconds: float
    """Time that it took, loading included."""


class HotSwap:
    """Loads and rolls back, one change of a model at a time; its methods block and belong into a thread.

    Args:
        models: what is served.
        load: makes a warmed model.
        recorder: counts the swaps.
        keep: whether the replaced model stays loaded for a rollback.
    """

    def __init__(self, models: Registry, load: Load, recorder: Recorder, *, keep: bool) -> None:
        self._models = models
        self._load = load
        self._recorder = recorder
        self._keep = keep
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._freeing: dict[str, threading.Thread] = {}
        self._last: dict[str, Manifest] = {}

    def is_busy(self, name: str) -> bool:
        """Whether this model is being replaced now."""
        return name in self._busy

    def last(self, name: str) -> Manifest | None:
        """What was put in charge last from the model's own folder."""
        return self._last.get(name)

    def load(self, name: str, bundle: str | None = None) -> Swap:
        """Put what is in the bundle's folder now in the place of the model.

        Args:
            name: of the model.
            bundle: name of the bundle; the model's own where none is given.

        Raises:
            RequestError: 404 no such model, 409 it is being replaced already, 422 the bundle can't serve, 503 no memory
                or not ready; the present model goes on serving.
        """
        with self._alone(name) as present:
            start = time.monotonic()
            try:
                model = self._loaded(name, bundle, present)
            except RequestError as error:
                self._recorder.swapped(name, "refused")
                logger.warning("%s %s goes on serving: %s", name, present.version, error.message)
                raise
            swap = self._flip(model, present, start, "loaded")
            if model.bundle == name:
                self._last[name] = model.manifest
            return swap

    def rollback(self, name: str) -> Swap:
        """Let the model answer again that was replaced last; a second rollback undoes the first.

        Raises:
            RequestError: 404 no such model, 409 there is none to go back to or it is being replaced, 503 not ready.
        """
        with self._alone(name) as present:
            previous = self._models.previous(name)
            if previous is None:
                raise RequestError(
                    409,
                    "no_previous",
                    f"no previous {name} is kept: there was no swap yet, or HALFTONE_KEEP_PREVIOUS=0 is set; "
                    "put the old bundle back and load it",
                )
            return self._flip(previous, present, time.monotonic(), "rolled_back")

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[ServedModel]:
        """The present model, while nobody else replaces it."""
        self._models.get(name)
        with self._lock:
            if name in self._busy:
                raise RequestError(409, "swap_running", f"{name} is being replaced already: ask again when it is done")
            self._busy.add(name)
        try:
            # Only now nobody else changes it.
            yield self._models.get(name)
        finally:
            self._busy.discard(name)

    def _loaded(self, name: str, bundle: str | None, present: ServedModel) -> ServedModel:
        # Never more than three at once: the present one, the previous one and the new one.
        if name in self._freeing:
            self._freeing.pop(name).join()
        try:
            return self._load(name, bundle=bundle, replaces=present)
        except GpuLostError as error:
            exit_after_gpu_loss(name, error)
        # Whatever a library makes of a bundle that it can't digest: the old model serves on.
        except Exception as error:
            if is_memory(error):
                raise unavailable("out_of_memory", f"there is no memory for another {name}", retry_after=60) from None
            if isinstance(error, HalftoneError):
                reason = str(error).replace(f"{artifacts()}/", "")
            else:
                logger.exception("failed to load %s", bundle or name)
                reason = f"{bundle or name} failed while it was loaded or warmed: see the server's log"
        raise RequestError(422, "bundle_refused", reason)

    def _flip(self, model: ServedModel, present: ServedModel, start: float, result: str) -> Swap:
        try:
            gone = self._models.publish(model, keep=self._keep)
        except RequestError:
            model.close()
            raise
        seconds = time.monotonic() - start
        self._recorder.swapped(model.name, result)
        logger.info("%s: %s took the place of %s after %.2f s", model.name, model.version, present.version, seconds)
        if gone:
            self._free_soon(model.name, gone)
        return Swap(model=model, replaced=present, seconds=seconds)

    def _free_soon(self, name: str, models: list[ServedModel]) -> None:
        thread = threading.Thread(target=self._free, args=(models,), name=f"{name}-free", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # There is no room for one more thread; the swap has happened all the same.
            self._free(models)
        else:
            self._freeing[name] = thread

    def _free(self, models: list[ServedModel]) -> None:
        """Let them finish, and give their memory back."""
        while models:
            model = models.pop()
            self._models.unused(model)
            model.close()
            logger.info("%s %s is freed", model.name, model.version)
            del model
        trim()
