"""Our service whose candidates may begin to fail: a bundle whose name ends in one of `FAULTS` has that fault.

A proof refuses such a bundle, so the fault is put around the runtime. It shows only after some runs, as the first ones
belong to the loading.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from export.runtime import Logits, Pixels, Runtime
from models.bundle.bundle import Bundle
from serving.lifecycle import selection
from serving.settings import Settings

SOUND_RUNS = 30


def _nan(logits: Logits, seconds: float) -> Logits:
    return np.full_like(logits, np.nan)


def _failing(logits: Logits, seconds: float) -> Logits:
    raise RuntimeError("the engine failed")


def _slower(logits: Logits, seconds: float) -> Logits:
    time.sleep(2 * seconds)
    return logits


FAULTS: dict[str, Callable[[Logits, float], Logits]] = {"-nan": _nan, "-failing": _failing, "-slower": _slower}
"""End of a bundle's name to what becomes of the logits of a run, and how many seconds the run took."""

_load_variant = selection.load_variant


def _load(bundle: Bundle, variant: str, settings: Settings) -> Runtime:
    runtime = _load_variant(bundle, variant, settings)
    for end, fault in FAULTS.items():
        if bundle.folder.name.endswith(end):
            runtime.run = _Faulty(runtime.run, fault)  # type: ignore[method-assign]
    return runtime


class _Faulty:
    """`Runtime.run` with a fault."""

    def __init__(self, run: Callable[..., Logits], fault: Callable[[Logits, float], Logits]) -> None:
        self._run, self._fault = run, fault
        self._runs = 0

    def __call__(self, pixels: Pixels, *, alone: bool = False) -> Logits:
        self._runs += 1
        start = time.perf_counter()
        logits = self._run(pixels, alone=alone)
        return logits if self._runs <= SOUND_RUNS else self._fault(logits, time.perf_counter() - start)


# Before the service is imported, which takes the name from there.
selection.load_variant = _load

from serving.service import HalftoneService  # noqa: E402

__all__ = ["HalftoneService"]
