"""Comparison of engines: run on the CPU, and on a GPU if there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import export.benchmark.gpu.compare
from export.benchmark.gpu.ceilings import Ceilings, measured
from export.benchmark.gpu.compare import LATE, compare_engines
from export.benchmark.gpu.engines import PyTorch
from export.benchmark.gpu.table import CUDA_HEADINGS, ceilings_line, cuda_cells
from export.benchmark.gpu.timing import timed
from export.benchmark.tables import as_text
from export.parity.images import sample_crops
from export.pipeline import make_for_gpu
from export.variants import load, runtime_class
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from tests.commands import run

CEILINGS = Ceilings(tflops=1.0, copy=10.0, upload=5.0, decoded_on_cpu=100.0, decoded_on_gpu=None)
TRIAL: dict[str, Any] = {"device": "cpu", "dtype": torch.float32, "precision": "fp32", "compiled": False}


def compared(bundle: Bundle, **changes: Any) -> list[dict[str, Any]]:
    return compare_engines(
        [bundle], CEILINGS, **TRIAL | {"batches": (1, 3), "seconds": 0.01, "advance": print} | changes
    )


@pytest.fixture(scope="module")
def reference(default: Bundle) -> Callable[..., Any]:
    """Compute the crops and PyTorch's logits once, for comparisons in which the reference is not the subject."""
    computed = export.benchmark.gpu.compare._reference(default, "cpu")
    return lambda *_: computed


@pytest.fixture(scope="module")
def rows(default: Bundle, reference: Callable[..., Any]) -> list[dict[str, Any]]:
    """The rows of a whole comparison."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.benchmark.gpu.compare, "_reference", reference)
        return compared(default)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prove on one crop per photograph: the failures under test do not depend on the number of images."""
    monkeypatch.setattr(export.benchmark.gpu.compare, "sample_crops", partial(sample_crops, per_photo=1))


def test_every_engine_is_proved_and_timed(rows: list[dict[str, Any]]) -> None:
    assert [row["engine"] for row in rows] == ["torch eager", "onnxruntime-fp32"]
    for row in rows:
        assert (row["verdict"], row["reasons"]) == ("PASSED", [])
        assert row["agreement"] == 1
        assert [each["batch"] for each in row["batches"]] == [1, 3]
        for each in row["batches"]:
            assert each["p99_ms"] >= each["p50_ms"] > 0
            # 71 million multiply-adds and 27,648 bytes a picture.
            assert each["tflops"] == pytest.approx(each["images_per_second"] * 2 * 0.0717e9 / 1e12, rel=0.1)
            assert each["share_of_product"] == pytest.approx(each["tflops"])
            assert each["upload"] == pytest.approx(each["images_per_second"] * 27_648 / 1e9)
            assert each["share_of_upload"] == pytest.approx(each["upload"] / 5)


def test_what_comes_too_late_keeps_its_row(default: Bundle) -> None:
    rows = compared(default, deadline=time.monotonic() - 1)

    assert [row["reason"] for row in rows] == [LATE, LATE]
    (line,) = cuda_cells(rows[0])
    assert line[:2] == ("efficientnet_lite0", "torch eager")
    assert line[-1] == LATE


@pytest.mark.usefixtures("few")
def test_an_engine_that_fails_does_not_cost_the_others(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: PyTorch, pixels: Any) -> Any:
        if len(pixels) == 3:
            raise RuntimeError("CUDA: out\nof memory")
        return np.zeros((len(pixels), 1000), np.float32)

    monkeypatch.setattr(PyTorch, "run", fails)
    broken, fine = compared(default)

    assert broken["batches"][0]["images_per_second"] > 0
    assert broken["batches"][1] == {"batch": 3, "reason": "CUDA: out of memory"}
    assert cuda_cells(broken)[1][-1] == "CUDA: out of memory"
    # The reference of this run was zeros as well.
    assert fine["verdict"] == "FAILED"
    assert all(each["images_per_second"] > 0 for each in fine["batches"])


def test_after_an_engine_that_spoils_the_gpu_nothing_is_measured(
    default: Bundle, reference: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.benchmark.gpu.compare, "_reference", reference)
    tidied = iter([True, True, False])
    monkeypatch.setattr(export.benchmark.gpu.compare, "_tidy", lambda device: next(tidied))

    first, second = compared(default)

    assert first["verdict"] == "PASSED"
    assert second["reason"] == (
        "not measured: torch eager of efficientnet_lite0 left the GPU unusable for this process; name this model alone"
    )


@pytest.mark.usefixtures("few")
def test_a_reference_that_fails_is_a_reason(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: PyTorch, pixels: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(PyTorch, "run", fails)

    assert [row["reason"] for row in compared(default)] == ["MemoryError", "MemoryError"]


def test_the_table_has_a_line_a_batch_size(rows: list[dict[str, Any]]) -> None:
    lines = [line for row in rows for line in cuda_cells(row)]
    about = {
        "host": {"cpu": "a processor", "features": [], "cores": 2, "system": "Linux"}, "date": "today",
        "gpu": "a GPU", "torch": "2.9", "ceilings": vars(CEILINGS),
    }  # fmt: skip

    assert all(len(line) == len(CUDA_HEADINGS) for line in lines)
    text = as_text(CUDA_HEADINGS, lines, about | {"note": ceilings_line(about)})
    assert "a GPU, PyTorch 2.9: matrix product 1.0 TFLOP/s" in " ".join(text.split())
    assert "nvJPEG" not in text
    assert "7 by nvJPEG" in ceilings_line(about | {"ceilings": vars(CEILINGS) | {"decoded_on_gpu": 7.0}})


def test_ceilings_are_positive(default: Bundle) -> None:
    found = measured(default.manifest.input, device="cpu", dtype=torch.float32, size=64)

    assert min(found.tflops, found.copy, found.upload, found.decoded_on_cpu) > 0
    assert found.decoded_on_gpu is None


def test_a_timing_counts_pictures() -> None:
    timing = timed(lambda: time.sleep(0.01), 4, 0.05)

    assert len(timing.seconds) >= 1
    assert 10 <= timing.p50 <= timing.p99
    assert timing.images_per_second <= 400


def test_what_a_gpu_needs_is_made_without_one(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))

    bundle = make_for_gpu("resnet18")

    assert {"model.fp16.onnx", "engines/tensorrt_rtx-fp16.plan"} <= bundle.manifest.files.keys()
    before = dict(bundle.manifest.files)
    assert make_for_gpu("resnet18").manifest.files == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_the_command_says_so(artifacts: Path) -> None:
    done = command(artifacts, "--model", "efficientnet_lite0")

    assert done.returncode == 2
    assert "finds no CUDA GPU here" in done.stderr
    assert "Traceback" not in done.stderr


def test_onnx_runtime_on_a_gpu_is_refused_without_one(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)

    assert not runtime_class("onnxruntime_cuda").supported("fp16")
    with pytest.raises(HalftoneError, match="Python bindings can't be imported"):
        load(default, "onnxruntime_cuda-fp16", threads=1)


@pytest.mark.gpu
def test_on_a_gpu(copied: Bundle, tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    done = command(
        copied.folder.parent, "--model", "efficientnet_lite0", "--make", "--no-compiled", "--output", str(output)
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert result["ceilings"]["tflops"] > 1
    engines = {row["engine"]: row for row in result["results"]}
    assert {"torch eager", "onnxruntime_cuda-fp16"} <= engines.keys()
    assert all(row["verdict"] == "PASSED" for row in engines.values() if "verdict" in row)


def command(artifacts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(artifacts)}
    return run("export.benchmark", "--device", "cuda", "--seconds", "0.05", *arguments, env=environment)
