"""The gate lets through what answers as the reference does, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.parity.gate import Gate
from export.parity.metrics import compare
from export.parity.record import UnprovenError, check_runtime, proof
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.statistics import mcnemar_p, rate
from tests.servers import PHOTOS, ROOT

NAME = "efficientnet_lite0"


def run(artifacts: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(artifacts)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sabotaged(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle with an FP32 graph whose classes are shifted by one, its hash set right."""
    folder = tmp_path_factory.mktemp("sabotaged")
    shutil.copytree(artifacts / NAME, folder / NAME)
    bundle = Bundle.open(folder / NAME)
    graph = onnx.load_from_string(bundle.read("model.fp32.onnx"))
    (weights,) = [each for each in graph.graph.initializer if list(each.dims) == [1000, 1280]]
    weights.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weights), 1, axis=0), weights.name))
    old = bundle.manifest.files["model.fp32.onnx"]
    bundle.write("model.fp32.onnx", graph.SerializeToString(), made_by=old.made_by, made_from=list(old.made_from))
    return folder


def test_every_variant_of_the_default_bundle_is_proven(artifacts: Path) -> None:
    bundle = Bundle.open(artifacts / NAME)

    for variant in ("onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32"):
        record = proof(bundle, variant)
        assert record.figures["images"] >= 256
        assert record.figures["decided_agreement"]["value"] >= 0.99
        assert record.figures["nan_or_inf"] == 0


def test_a_sabotaged_graph_fails_with_exit_code_1_and_may_not_serve(sabotaged: Path) -> None:
    result = run(sabotaged, "export.parity", "--model", NAME, "--variant", "onnxruntime-fp32")

    record = json.loads((sabotaged / NAME / "parity" / "onnxruntime-fp32.json").read_text())
    assert result.returncode == 1, result.stderr
    assert "FAILED onnxruntime-fp32: " in result.stderr
    assert "top-1 agreement on decided pictures" in result.stderr
    assert record["verdict"] == "FAILED"
    assert record["figures"]["top1_agreement"]["value"] < 0.1
    with pytest.raises(UnprovenError, match="failed its parity gate"):
        proof(Bundle.open(sabotaged / NAME), "onnxruntime-fp32")


def test_a_proof_for_another_graph_or_library_does_not_count(sabotaged: Path, artifacts: Path) -> None:
    with pytest.raises(UnprovenError, match=r"other files.*python -m export\.parity"):
        proof(Bundle.open(sabotaged / NAME), "openvino-fp32")
    record = proof(Bundle.open(artifacts / NAME), "onnxruntime-fp32")
    with pytest.raises(UnprovenError, match=r"0\.0\.1"):
        check_runtime(record, "0.0.1", record.runtime["executed_as"], NAME)


def test_labelled_pictures_are_judged_by_accuracy(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts / NAME, tmp_path / NAME)
    for label, photo in (("espresso", "coffee.jpg"), ("tiger cat", "cat.jpg"), ("missile", "rocket.jpg")):
        (tmp_path / "data" / "val" / label).mkdir(parents=True)
        shutil.copy(PHOTOS / photo, tmp_path / "data" / "val" / label)
    arguments = ["--model", NAME, "--variant", "onnxruntime-fp32", "--data", str(tmp_path / "data")]

    result = run(tmp_path, "export.parity", *arguments)

    record = json.loads((tmp_path / NAME / "parity" / "onnxruntime-fp32.json").read_text())
    accuracy = record["figures"]["accuracy"]
    assert result.returncode == 0, result.stderr
    assert (record["data"]["labelled"], record["figures"]["images"]) == (True, 3)
    assert accuracy["reference"]["value"] >= 2 / 3
    assert (accuracy["difference"], accuracy["mcnemar_p"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--model", "no_such_model"], "python -m export"),
        (["--model", NAME, "--variant", "onnxruntime-fp99"], "choose from"),
        (["--model", NAME, "--variant", "abacus-fp32"], "not a variant"),
        (["--model", NAME, "--data", "/no/such/folder"], "no such folder"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_code_2(artifacts: Path, arguments: list[str], word: str) -> None:
    result = run(artifacts, "export.parity", *arguments)

    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert word in result.stderr


def test_a_second_export_makes_nothing_anew(artifacts: Path) -> None:
    before = (artifacts / NAME / "manifest.json").read_bytes()

    result = run(artifacts, "export", "--model", NAME)

    assert (result.returncode, result.stderr) == (0, "")
    assert (artifacts / NAME / "manifest.json").read_bytes() == before


def test_measures_by_hand() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, 3.0]], np.float32)
    variant = np.array([[2.0, 0.0], [2.0, 0.0], [1.0, 0.5], [0.0, 3.0]], np.float32)

    figures = compare(reference, variant, np.array([0, 1, 0, 0]))

    assert figures["top1_agreement"]["value"] == 0.75
    assert figures["max_abs_logit_difference"] == 2.0
    assert figures["accuracy"]["reference"]["value"] == 0.75
    assert figures["accuracy"]["variant"]["value"] == 0.5
    assert figures["worst_class_drop"] == {"class_index": 1, "images": 1, "reference": 1.0, "variant": 0.0, "drop": 1.0}


def test_an_answer_that_is_no_number_fails_every_gate() -> None:
    logits = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32) * 5
    broken = logits.copy()
    broken[0, 0] = np.nan

    assert Gate().reasons_to_fail(compare(logits, logits, None), trained=True) == []
    assert "NaN" in Gate().reasons_to_fail(compare(logits, broken, None), trained=True)[0]


def test_statistics_against_known_values() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(10, 0) == pytest.approx(2 / 2**10)
    interval = rate(81, 263)
    assert (interval["low"], interval["high"]) == pytest.approx((0.2553, 0.3662), abs=1e-3)


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32", "torch-fp32"])
def test_any_batch_size_and_nothing_but_pixels(artifacts: Path, variant: str) -> None:
    runtime = load(Bundle.open(artifacts / NAME), variant, threads=2, streams=1)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)

    together = runtime.run(pixels)

    assert (together.dtype, together.shape) == (np.float32, (5, 1000))
    np.testing.assert_allclose(np.concatenate([runtime.run(each[None]) for each in pixels]), together, atol=2e-2)
    for wrong in (pixels.astype(np.float32), pixels[0], pixels[:0], pixels[:, :100]):
        with pytest.raises(ValueError, match="pixels must be uint8"):
            runtime.run(wrong)


def test_threads_must_be_positive(artifacts: Path) -> None:
    with pytest.raises(HalftoneError, match="at least 1"):
        load(Bundle.open(artifacts / NAME), "onnxruntime-fp32", threads=0)
