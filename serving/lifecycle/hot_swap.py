"""Hot swap: load, verify and warm up a model next to the active one, activate it, drain the old one, free it.

The model that was replaced last stays loaded: a rollback then takes no time, and works even if the bundle's folder was
overwritten. Older models are freed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from export.cuda.device import GpuLostError
from models.bundle.commands import without_place
from models.bundle.manifest import Manifest
from models.bundle.store import artifacts
from models.common.errors import HalftoneError
from models.common.memory import trim
from serving.http.errors import RequestError, unavailable
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.process.startup_errors import exit_broken, is_memory
from serving.telemetry.recorder import Recorder

logger = logging.getLogger("bentoml.halftone")


Retired = tuple[ServedModel, Callable[[], object]]
"""A model that no new request reaches, and what closes it."""


class LoadModel(Protocol):
    """`serving.lifecycle.loading.load_model` with the service's settings."""

    def __call__(self, name: str, *, bundle: str | None, replaces: ServedModel | None) -> ServedModel:
        """Load, warm up and measure a model."""


@dataclass(frozen=True, kw_only=True)
class Swap:
    """A completed swap or rollback."""

    model: ServedModel
    """The active model."""

    replaced: ServedModel
    """The model that was active before."""

    seconds: float
    """Duration of the swap, including the loading."""


class HotSwap:
    """Loads models and rolls them back, one change of a model at a time; its methods block: call them in a thread.

    Args:
        models: the models of the service.
        load: loads a model and warms it up.
        recorder: counts the swaps.
        keep: keep the replaced model in memory for a rollback.
    """

    def __init__(self, models: Registry, load: LoadModel, recorder: Recorder, *, keep: bool) -> None:
        self._models = models
        self._load = load
        self._recorder = recorder
        self._keep = keep
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._freeing: dict[str, threading.Thread] = {}
        self._last_loaded: dict[str, Manifest] = {}

    def is_busy(self, name: str) -> bool:
        """Return True if this model is being replaced now."""
        return name in self._busy

    def last_loaded(self, name: str) -> Manifest | None:
        """Return the manifest that was last activated from the model's own folder."""
        return self._last_loaded.get(name)

    def load(self, name: str, bundle: str | None = None) -> Swap:
        """Replace the model by the present content of a bundle's folder.

        Args:
            name: name of the model.
            bundle: name of the bundle; default: the model's own.

        Raises:
            RequestError: 404 no such model, 409 it is being replaced already or a candidate is on trial, 422 the bundle
                can't serve, 503 no memory or not ready; the active model then keeps serving.
        """
        with self.exclusive(name) as active:
            self._check_no_candidate(name)
            start = time.monotonic()
            model = self.load_beside(name, bundle, active)
            swap = self.activate(model, active, start)
            self._recorder.swapped(name, "loaded")
            return swap

    def refine(self, name: str, provisional: ServedModel) -> None:
        """Load a model once more, now that its variants are measured, and free the provisional one.

        Does nothing if that one is no longer active, or another change runs. It is no swap of its bundle: metrics don't
        count it, and a rollback does not lead back to it.

        Raises:
            RequestError: 422 the bundle can't serve any more, 503 no memory; the active model then keeps serving.
        """
        try:
            with self.exclusive(name) as active:
                if active is provisional:
                    model = self._load_or_refuse(name, None, active)
                    self._activate(model, active, time.monotonic(), keep=False)
                    self._last_loaded[name] = model.manifest
                    logger.info("%s: measured on this machine, and loaded again as %s", name, model.variant)
        except RequestError as error:
            if error.status != 409:
                raise

    def rollback(self, name: str) -> Swap:
        """Activate the model that was replaced last; a second rollback undoes the first.

        Raises:
            RequestError: 404 no such model, 409 there is no previous model, a candidate is on trial or a swap runs, 503
                not ready.
        """
        with self.exclusive(name) as active:
            self._check_no_candidate(name)
            previous = self._models.previous(name)
            if previous is None:
                raise RequestError(
                    409,
                    "no_previous",
                    f"no previous {name} is kept: there was no swap yet, or HALFTONE_KEEP_PREVIOUS=0 is set; "
                    "put the old bundle back and load it",
                )
            swap = self.activate(previous, active, time.monotonic())
            self._recorder.swapped(name, "rolled_back")
            return swap

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[ServedModel]:
        """Yield the active model while no other thread can replace it.

        Raises:
            RequestError: 404 no such model, 409 it is being replaced already, 503 not ready.
        """
        self._models.get(name)
        with self._lock:
            if name in self._busy:
                raise RequestError(409, "swap_running", f"{name} is being replaced already: try again when it is done")
            self._busy.add(name)
        try:
            # Read again: only now no other thread can change it.
            yield self._models.get(name)
        finally:
            self._busy.discard(name)

    def load_beside(self, name: str, bundle: str | None, active: ServedModel) -> ServedModel:
        """Return a loaded model that no request reaches yet; to be called within `exclusive`.

        The watcher does not load the same content of the model's own folder again, whatever becomes of this model.

        Raises:
            RequestError: 422 the bundle can't serve, 503 no memory.
        """
        try:
            model = self._load_or_refuse(name, bundle, active)
        except RequestError as error:
            self._recorder.swapped(name, "refused")
            logger.warning("%s %s keeps serving: %s", name, active.version, error.message)
            raise
        if model.bundle == name:
            self._last_loaded[name] = model.manifest
        return model

    def activate(self, model: ServedModel, active: ServedModel, start: float) -> Swap:
        """Let a loaded model take the place of the active one; to be called within `exclusive`.

        Args:
            model: a model that is warmed up.
            active: the active model.
            start: monotonic time at which the swap began.

        Raises:
            RequestError: 503 if the service is stopping; the model is then closed.
        """
        swap = self._activate(model, active, start, keep=self._keep)
        if model.version == active.version:
            logger.info("%s: %s was loaded again, as %s", model.name, model.version, model.variant)
        else:
            logger.info(
                "%s: %s took the place of %s after %.2f s", model.name, model.version, active.version, swap.seconds
            )
        return swap

    def free(self, model: ServedModel, close: Callable[[], object]) -> None:
        """Drain a model that no new request reaches, and call `close`, in a thread; to be called within `exclusive`."""
        self._free_in_background(model.name, [(model, close)])

    def _check_no_candidate(self, name: str) -> None:
        if candidate := self._models.candidate(name):
            raise RequestError(
                409,
                "canary_running",
                f"{name} has the candidate {candidate.model.version} on trial: end that first with "
                f"`POST /admin/models/{name}/promote` or `DELETE /admin/models/{name}/canary`",
            )

    def _load_or_refuse(self, name: str, bundle: str | None, active: ServedModel) -> ServedModel:
        # Never more than three in memory: the active one, the previous one and the new one or the candidate.
        if name in self._freeing:
            self._freeing.pop(name).join()
        try:
            return self._load(name, bundle=bundle, replaces=active)
        except GpuLostError as error:
            exit_broken(name, error)
        # Whatever a library raises on a bad bundle, the active model keeps serving.
        except Exception as error:
            if is_memory(error):
                raise unavailable("out_of_memory", f"there is no memory for another {name}", retry_after=60) from None
            if isinstance(error, HalftoneError):
                reason = without_place(str(error), artifacts())
            else:
                logger.exception("failed to load %s", bundle or name)
                reason = f"{bundle or name} failed while it was loaded or warmed: see the server's log"
        raise RequestError(422, "bundle_refused", reason)

    def _activate(self, model: ServedModel, active: ServedModel, start: float, *, keep: bool) -> Swap:
        try:
            retired = self._models.publish(model, keep=keep)
        except RequestError:
            model.close()
            raise
        seconds = time.monotonic() - start
        if retired:
            self._free_in_background(model.name, [(each, each.close) for each in retired])
        return Swap(model=model, replaced=active, seconds=seconds)

    def _free_in_background(self, name: str, models: list[Retired]) -> None:
        thread = threading.Thread(target=self._free, args=(models,), name=f"{name}-free", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system allows no further thread; the swap is done anyway.
            self._free(models)
        else:
            self._freeing[name] = thread

    def _free(self, models: list[Retired]) -> None:
        """Drain these models and return their memory to the system."""
        while models:
            model, close = models.pop()
            self._models.wait_until_unused(model)
            close()
            logger.info("%s: %s, loaded before, is freed: no request reaches it any more", model.name, model.version)
            # The last reference: the memory must be free before `trim`.
            del model, close
        trim()
