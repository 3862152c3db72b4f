"""What can wait until the service is ready: larger batches, and measurements that a first start on a machine lacks."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from export.cuda.device import GpuLostError
from models.bundle.manifest import FILE_NAME as MANIFEST
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from models.common.memory import trim
from models.common.text import line
from serving.http.errors import RequestError
from serving.lifecycle import measurements
from serving.lifecycle.hot_swap import HotSwap
from serving.lifecycle.loading import unmeasured
from serving.lifecycle.measurements import Measurement
from serving.lifecycle.registry import Registry
from serving.lifecycle.served_model import ServedModel
from serving.process.signals import SERVICE_STOP
from serving.process.startup_errors import exit_broken, explain
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

_SOURCE = Path(__file__).parents[2]
_TRIES = 3
"""Measurements that may be disturbed by requests; the last one is used, but not kept for the next start."""
_QUIET_SECONDS, _PATIENCE_SECONDS = 0.5, 20.0
"""A measurement waits for this long without a request, and for such a time no longer than this."""
_POLL_SECONDS = 0.05


class Refinement:
    """Completes the models in the background, and measures them in a process of its own.

    Args:
        models: the models of the service.
        hot_swap: replaces a model if the measurements say so.
        settings: the service's settings.
    """

    def __init__(self, models: Registry, hot_swap: HotSwap, settings: Settings) -> None:
        self._models = models
        self._hot_swap = hot_swap
        self._settings = settings
        self._closed = threading.Event()
        self._running = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """True while nothing is completed or measured."""
        return not self._running

    def expect(self) -> None:
        """Count as not done from now on; to be called before models are loaded, so that no look comes too early."""
        self._running = True

    def start(self) -> None:
        """Start to complete and measure; to be called once all models are loaded, after `expect`."""
        threading.Thread(target=self._run, name="refine", daemon=True).start()

    def close(self) -> None:
        """End the measurement that runs."""
        with self._lock:
            self._closed.set()
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        try:
            self._complete_and_measure()
        finally:
            self._running = False

    def _complete_and_measure(self) -> None:
        for model in self._models.all():
            _complete(model)
        trim()
        for model in self._models.all():
            try:
                self.refine(model)
            except (HalftoneError, RequestError) as error:
                logger.info("%s stays as it is: %s", model.name, line(error))
            except OSError as error:
                logger.warning("%s could not be measured: %s", model.name, error)

    def refine(self, model: ServedModel) -> None:
        """Measure what is not known of a model; load it again if another variant or larger batches are faster.

        Raises:
            HalftoneError: the bundle can't be used any more, or can't be measured.
            RequestError: see `HotSwap.refine`.
            OSError: no process can be started.
        """
        if not unmeasured(model, self._settings):
            return
        bundle = open_bundle(model.bundle)
        with _one_at_a_time(bundle.folder):
            # Another worker may have measured it meanwhile.
            if unmeasured(model, self._settings):
                found, undisturbed = self._measure(model)
                measurements.remember(bundle, found)
                if found and undisturbed:
                    measurements.keep(bundle, found)
        if not self._closed.is_set() and bundle.manifest == model.manifest:
            self._hot_swap.refine(model.name, model)

    def _measure(self, model: ServedModel) -> tuple[list[Measurement], bool]:
        """Return what was measured, and True if no request came meanwhile."""
        found: list[Measurement] = []
        for _ in range(_TRIES):
            self._wait_until_quiet()
            before = self._requests()
            found = self._measured(model.bundle)
            if self._requests() == before:
                return found, True
            if self._closed.is_set():
                break
        return found, False

    def _wait_until_quiet(self) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        since, before = time.monotonic(), self._requests()
        while (now := time.monotonic()) < min(end, since + _QUIET_SECONDS) and not self._closed.wait(_POLL_SECONDS):
            if (requests := self._requests()) != before:
                since, before = now, requests

    def _requests(self) -> int:
        totals = [model.totals.read() for model in self._models.all()]
        return sum(each.success.count + each.fail.count for each in totals)

    def _measured(self, bundle: str) -> list[Measurement]:
        with self._lock:
            if self._closed.is_set():
                return []
            self._process = process = subprocess.Popen(
                # -P: a folder `models` in the current folder of the service must not replace ours.
                [sys.executable, "-P", "-m", "serving.lifecycle.measuring", bundle],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=_environment(),
            )
        output, errors = process.stdout, process.stderr
        assert output is not None
        assert errors is not None
        assert process.stdin is not None
        with process, contextlib.ExitStack() as open_pipe:
            # The process ends when this end of its stdin is closed.
            open_pipe.callback(process.stdin.close)
            found = output.read()
            reason = errors.read().decode(errors="replace").strip()
            code = process.wait()
        # The supervisor sends its signal to the worker's processes as well.
        if self._closed.is_set() or code == -SERVICE_STOP:
            return []
        if code:
            raise HalftoneError(f"measuring ended with exit code {code}: {(reason.splitlines() or ['-'])[-1]}")
        return measurements.from_json(found)


def _complete(model: ServedModel) -> None:
    try:
        model.complete()
    except GpuLostError as error:
        exit_broken(model.name, error)
    # Whatever a library raises, single images are served already.
    except Exception as error:
        logger.warning("%s serves single images only: %s", model.name, line(explain(error)))


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other worker measures models of this folder; works in read-only folders, too."""
    descriptor = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Some network file systems have no locks: then several measure at once.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    # In a Bento our source is in no folder that Python searches by default.
    path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}
