"""GPU failures: the cost is a variant, a batch, or the process if it can't use the GPU any more."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.benchmark import speed
from export.cuda.device import GpuError, GpuLostError
from export.runtime import Pixels
from export.runtimes.onnxruntime import OnnxRuntime
from export.runtimes.openvino import OpenVino
from serving.batch.inputs import Pictures
from serving.batch.scorer import Scorer
from serving.batching.autotune import measure
from serving.lifecycle.loading import load_fastest
from serving.settings import Settings
from tests.servers import PHOTOS, ROOT

MODEL = "efficientnet_lite0"


@pytest.fixture
def settings(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))
    return Settings(model=MODEL, threads=1)


def failing(error: Exception) -> Any:
    """Return a runtime's `_infer` that raises this error."""

    def infer(self: object, pixels: Pixels) -> npt.NDArray[np.floating]:
        raise error

    return infer


def test_a_failing_variant_gives_way_to_the_next(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVino, "_infer", failing(GpuError("CUDA: cudaErrorMemoryAllocation")))

    assert load_fastest(MODEL, settings).record.variant.startswith("onnxruntime")


@pytest.mark.parametrize("measured", [True, False])
def test_no_other_variant_takes_the_place_of_one_that_lost_the_gpu(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    """A new process may still be able to use the GPU."""
    monkeypatch.setattr(OpenVino, "_infer", failing(GpuLostError("CUDA: cudaErrorIllegalAddress")))
    if measured:
        monkeypatch.setattr(speed, "recorded", lambda *_: None)

    with pytest.raises(GpuLostError):
        load_fastest(MODEL, settings)


def test_a_measurement_omits_larger_batches_that_fail_unless_the_gpu_is_lost() -> None:
    def run(size: int, error: Exception) -> None:
        if size == 4:
            raise error

    assert max(measure(lambda size: run(size, GpuError("")), streams=1, largest=8, seconds=0.001).seconds) <= 2
    with pytest.raises(GpuLostError):
        measure(lambda size: run(size, GpuLostError("")), streams=1, largest=8, seconds=0.001)


def test_offline_scoring_ends_if_the_gpu_is_lost(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(settings, Pictures(str(PHOTOS)), 1)
    for kind in (OnnxRuntime, OpenVino):
        monkeypatch.setattr(kind, "_infer", failing(GpuError("CUDA: cudaErrorUnknown")))
    assert set(scorer.score(["cat.jpg"]).column("error_code").to_pylist()) == {"internal_error"}

    for kind in (OnnxRuntime, OpenVino):
        monkeypatch.setattr(kind, "_infer", failing(GpuLostError("CUDA: cudaErrorIllegalAddress")))
    with pytest.raises(GpuLostError):
        scorer.score(["cat.jpg"])


@pytest.mark.parametrize(("error", "code"), [("GpuLostError", 1), ("GpuError", 2)])
def test_a_worker_that_lost_the_gpu_while_loading_is_started_again(error: str, code: int) -> None:
    script = (
        f"from export.cuda.device import {error}\n"
        "from serving.process.startup_errors import end_worker\n"
        f"end_worker('m', {error}('x'))"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, "error: can't serve m: x; " in done.stderr) == (code, True)
