"""What a GPU that fails costs: a variant, a batch, or the process where it is lost to that."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import serving.lifecycle.loading
from export.cuda.device import GpuError, GpuLostError
from export.runtime import Pixels
from export.runtimes.onnxruntime import OnnxRuntime
from export.runtimes.openvino import OpenVino
from serving.batch.inputs import Pictures
from serving.batch.scorer import Scorer
from serving.batching.autotune import measure
from serving.lifecycle.loading import open_fastest
from serving.settings import Settings
from tests.servers import PHOTOS, ROOT

MODEL = "efficientnet_lite0"


@pytest.fixture
def settings(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))
    return Settings(model=MODEL, threads=1)


def failing(error: Exception) -> Any:
    """A runtime's `_infer` that raises it."""

    def infer(self: object, pixels: Pixels) -> npt.NDArray[np.floating]:
        raise error

    return infer


def test_a_variant_on_which_it_fails_gives_way_to_the_next(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenVino, "_infer", failing(GpuError("CUDA: cudaErrorMemoryAllocation")))

    assert open_fastest(MODEL, settings).record.variant.startswith("onnxruntime")


@pytest.mark.parametrize("measured", [True, False])
def test_where_it_is_lost_no_other_variant_takes_its_place(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    """Another process may still have it."""
    monkeypatch.setattr(OpenVino, "_infer", failing(GpuLostError("CUDA: cudaErrorIllegalAddress")))
    if measured:
        monkeypatch.setattr(serving.lifecycle.loading.speed, "recorded", lambda *_: None)

    with pytest.raises(GpuLostError):
        open_fastest(MODEL, settings)


def test_a_measurement_goes_on_without_larger_batches_unless_it_is_lost() -> None:
    def run(size: int, error: Exception) -> None:
        if size == 4:
            raise error

    assert max(measure(lambda size: run(size, GpuError("")), streams=1, largest=8, seconds=0.001).seconds) <= 2
    with pytest.raises(GpuLostError):
        measure(lambda size: run(size, GpuLostError("")), streams=1, largest=8, seconds=0.001)


def test_offline_scoring_ends_where_it_is_lost(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(settings, Pictures(str(PHOTOS)), 1)
    for kind in (OnnxRuntime, OpenVino):
        monkeypatch.setattr(kind, "_infer", failing(GpuError("CUDA: cudaErrorUnknown")))
    assert set(scorer.score(["cat.jpg"]).column("error_code").to_pylist()) == {"internal_error"}

    for kind in (OnnxRuntime, OpenVino):
        monkeypatch.setattr(kind, "_infer", failing(GpuLostError("CUDA: cudaErrorIllegalAddress")))
    with pytest.raises(GpuLostError):
        scorer.score(["cat.jpg"])


@pytest.mark.parametrize(("error", "code"), [("GpuLostError", 1), ("GpuError", 2)])
def test_a_worker_that_lost_it_while_loading_is_started_again(error: str, code: int) -> None:
    script = f"from export.cuda.device import {error}; from serving.process.startup_errors import end_worker; end_worker('m', {error}('x'))"

    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, "error: can't serve m: x; " in done.stderr) == (code, True)
