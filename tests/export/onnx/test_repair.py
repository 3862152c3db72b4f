"""Repair of an FP16 graph that overflows: a few FP32 nodes, or a failure with all attempts on record."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.progress import Progress

import export.onnx.fp16.repair
from export.onnx.export import export_onnx
from export.onnx.fp16.convert import to_fp16
from export.onnx.fp16.ranges import beyond_fp16, infer, magnitudes
from export.onnx.fp16.repair import repair, repair_and_print
from export.onnx.metadata import normalisation
from export.parity.gate import Gate
from export.parity.prove import prove
from export.parity.record import UnprovenError, current, proof
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from tests.commands import run
from tests.export.pictures import labelled_pictures, overflowing

VARIANT = "onnxruntime-fp16"


def export_fp16(bundle: Bundle, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(bundle.folder.parent)}
    return run("export.onnx", "--model", bundle.manifest.name, "--precision", "fp16", *arguments, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overflowing")


@pytest.fixture(scope="module")
def refused(folder: Path) -> Bundle:
    """A ViT whose attention overflows, exported with a failed record, and labelled images for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALFTONE_ARTIFACTS", str(folder))
        bundle = overflowing("vit_ti16", 112)
    labelled_pictures(bundle, folder / "pictures")
    for precision in ("fp32", "fp16"):
        export_onnx(bundle, precision)  # type: ignore[arg-type]
    with Progress(disable=True) as progress:
        (record,) = prove(bundle, {VARIANT: Gate()}, folder / "pictures", progress)
    assert record.verdict == "FAILED"
    assert record.figures["nan_or_inf"] == record.figures["images"]
    return bundle


@pytest.fixture
def network(refused: Bundle, tmp_path: Path) -> Bundle:
    """A copy of that ViT."""
    return Bundle.open(shutil.copytree(refused.folder, tmp_path / refused.folder.name))


def test_an_overflowing_cnn_is_repaired_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    bundle = overflowing("resnet18", 64)
    pictures = str(labelled_pictures(bundle, tmp_path / "pictures"))

    plain = export_fp16(bundle, "--no-repair", "--data", pictures)
    assert plain.returncode == 1, plain.stderr
    assert "256 of 256 answers hold NaN or infinity" in plain.stderr
    with pytest.raises(UnprovenError, match="NaN or infinity"):
        proof(Bundle.open(bundle.folder), VARIANT)

    repaired = export_fp16(bundle, "--data", pictures)
    assert repaired.returncode == 0, repaired.stderr
    bundle = Bundle.open(bundle.folder)
    record = json.loads(bundle.read("model.fp16.json"))
    assert record["verdict"] == proof(bundle, VARIANT).verdict == "PASSED"
    assert record["graph_sha256"] == bundle.manifest.files["model.fp16.onnx"].sha256
    assert [each["verdict"] for each in record["attempts"]] == ["FAILED", "FAILED", "PASSED", "PASSED"]
    assert [each["evaluated_by"] for each in record["attempts"]] == ["parity gate", "search", "search", "parity gate"]
    # The convolution that overflows, the rectifier after it and the convolution that divides it away.
    assert record["attempts"][-1]["fp32_operators"] == {"Conv": 2, "Relu": 1}
    assert record["attempts"][-1]["weight_bytes"]["FLOAT16"] > 20 * record["attempts"][-1]["weight_bytes"]["FLOAT"]


def test_an_overflowing_vit_is_repaired(network: Bundle, folder: Path) -> None:
    reported = []

    attempts = repair(network, data=folder / "pictures", report=reported.append)

    assert attempts == reported
    assert (attempts[0].verdict, attempts[0].fp32_nodes) == ("FAILED", 0)
    assert (attempts[-1].verdict, attempts[-1].evaluated_by) == ("PASSED", "parity gate")
    nodes = len(onnx.load_from_string(network.read("model.fp16.onnx")).graph.node)
    assert 0 < attempts[-1].fp32_nodes < nodes / 20
    assert attempts[-1].weight_bytes["FLOAT16"] > 10 * attempts[-1].weight_bytes["FLOAT"]
    assert proof(network, VARIANT).figures["nan_or_inf"] == 0


def test_a_repaired_graph_keeps_the_contract(network: Bundle, folder: Path) -> None:
    graph = onnx.load_from_string(network.read("model.fp32.onnx"))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    kept = beyond_fp16(graph, magnitudes(graph, pixels)) | normalisation(graph)

    half = to_fp16(graph, kept)

    metadata = {entry.key: entry.value for entry in half.metadata_props}
    expected = load(network, "torch-fp32", threads=2).run(pixels)
    for batch in (1, 3):
        (logits,) = infer(half, pixels[:batch], ["logits"])
        assert (logits.dtype, logits.shape) == (np.float32, (batch, 5))
        np.testing.assert_allclose(logits, expected[:batch], atol=1e-2)
    assert metadata["halftone.name"] == "vit_ti16"
    assert half.graph.input == graph.graph.input


def test_where_nothing_helps_the_answer_is_no(
    network: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export.onnx.fp16.repair, "proposals", lambda _: iter([(set(), "a wrong guess")]))

    assert repair_and_print(network, data=folder / "pictures") == 1

    record = json.loads(network.read("model.fp16.json"))
    assert (record["verdict"], record["attempts"][-1]["kept"]) == ("FAILED", "a wrong guess")
    assert "256 of 256 answers hold NaN or infinity" in capsys.readouterr().out
    with pytest.raises(UnprovenError, match="failed its parity gate"):
        proof(network, VARIANT)


def test_fp16_by_name_only_is_no_repair(network: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {node.name for node in onnx.load_from_string(network.read("model.fp32.onnx")).graph.node}
    monkeypatch.setattr(export.onnx.fp16.repair, "proposals", lambda _: iter([(everything, "everything")]))

    attempts = repair(network, data=folder / "pictures", report=lambda _: None)

    assert attempts[-1].reasons == ["only 0% of the weights' bytes would be FP16, below 50%"]


def test_what_passes_only_without_roundings_is_repaired(
    network: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime on the CPU may pass a graph that overflows on a GPU."""
    passed = replace(current(network, VARIANT), verdict="PASSED", reasons=[])
    monkeypatch.setattr(export.onnx.fp16.repair, "current", lambda *_: passed)

    attempts = repair(network, data=folder / "pictures", report=lambda _: None)

    assert [attempt.verdict for attempt in attempts] == ["PASSED", "FAILED", "PASSED", "PASSED"]
    assert "NaN or infinity" in attempts[1].reasons[0]
    assert attempts[-1].fp32_nodes > 0


def test_plain_fp16_stays_where_it_is_right(copied: Bundle, tmp_path: Path) -> None:
    before = copied.manifest.files["model.fp16.onnx"]

    attempts = repair(copied, data=None, report=lambda _: None)

    assert [(attempt.verdict, attempt.fp32_nodes) for attempt in attempts] == [("PASSED", 0), ("PASSED", 0)]
    assert copied.manifest.files["model.fp16.onnx"] == before
    assert json.loads(copied.read("model.fp16.json"))["verdict"] == "PASSED"


def test_a_repair_needs_the_fp32_graph(copied: Bundle) -> None:
    copied.write("weights.safetensors", b"newer", made_by="a test")

    with pytest.raises(HalftoneError, match=r"python -m export\.onnx --model efficientnet_lite0 --precision fp32`"):
        repair(copied, data=None, report=lambda _: None)
