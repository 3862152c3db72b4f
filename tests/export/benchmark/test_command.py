import json
import os
import subprocess
from pathlib import Path

import pytest

from export.benchmark.__main__ import HEADINGS, BenchmarkConfig, cells
from export.benchmark.tables import as_markdown
from export.benchmark.variants import Timing
from models.common.errors import HalftoneError
from tests.commands import run


def benchmark(artifacts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("export.benchmark", *arguments, env=os.environ | {"HALFTONE_ARTIFACTS": str(artifacts)})


@pytest.fixture(scope="module")
def result(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    output = tmp_path_factory.mktemp("benchmark") / "variants.json"
    done = benchmark(
        artifacts, "--model", "efficientnet_lite0", "--rounds", "1", "--seconds", "0.05", "--output", str(output),
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "onnxruntime-fp32" in done.stderr
    assert json.loads(done.stdout) == json.loads(output.read_text())
    return json.loads(done.stdout)


def test_every_variant_is_timed_and_has_its_verdict(result: dict) -> None:
    (model,) = result["results"]
    variants = model["variants"]

    assert {"onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32"} <= variants.keys()
    assert variants["onnxruntime-fp32"]["ratio"] == 1.0
    for row in variants.values():
        assert row["bytes"] > 1e6
        assert row["best"]["images_per_second"] == max(row["rates"].values()) > 0
        assert row["parity"]["verdict"] == "PASSED"


def test_the_table_has_a_row_a_variant(result: dict) -> None:
    (model,) = result["results"]
    rows = cells(model)
    text = as_markdown(HEADINGS, rows, {"host": result["host"], "date": result["date"]})

    assert len(rows) == len(model["variants"])
    assert all(len(row) == len(HEADINGS) for row in rows)
    assert text.splitlines()[0].startswith("| model | variant | MB |")
    assert result["host"]["cpu"] in text.splitlines()[-1]


def test_a_variant_that_can_not_run_here_keeps_its_row() -> None:
    row = {"bytes": 2_000_000, "parity": None, "reason": "no GPU"}
    (line,) = cells({"model": "a", "trained": False, "variants": {"tensorrt_rtx-fp16": row}})

    assert line[:3] == ("a (random weights)", "tensorrt_rtx-fp16", "2.0")
    assert line[-1] == "not proved"


def test_the_best_rate_is_the_highest() -> None:
    timing = Timing(
        milliseconds={1: [10.0, 12.0, 11.0], 8: [40.0, 44.0, 42.0]}, concurrent={1: [150.0, 160.0, 140.0], 8: [170.0]}
    )

    assert timing.rates()["batch 1"] == pytest.approx(1000 / 11)
    assert timing.best() == ("batch 8", pytest.approx(8000 / 42))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name models, as in"),
        ({"model": ("a",), "all_families": True}, "name models, as in"),
        ({"model": ("a",), "rounds": 0}, "--rounds must be 1 or more"),
        ({"model": ("a",), "seconds": 0.0}, "--seconds between 0 and 60"),
        ({"model": ("a",), "output": Path("a.txt")}, r"--output a.txt must end in .md or .json"),
    ],
)
def test_a_wrong_request_is_refused(options: dict, message: str) -> None:
    with pytest.raises(HalftoneError, match=message):
        BenchmarkConfig(**options)


def test_a_model_without_a_bundle_names_the_way(tmp_path: Path) -> None:
    done = benchmark(tmp_path, "--model", "resnet18")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
