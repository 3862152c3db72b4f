"""INT8: calibrated on other images than its proof, proved on both runtimes, or not promoted."""

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import export.onnx.int8
from export.benchmark.sabotage import QUANTISED
from export.onnx.attempts import Attempt
from export.onnx.calibration import calibration_pictures
from export.onnx.export import export_onnx
from export.onnx.fp16.ranges import infer
from export.onnx.int8 import export_int8, export_int8_and_print, int8_variants, quantise
from export.onnx.metadata import layers
from export.onnx.quiet import suppress_output
from export.onnx.sensitivity import candidates
from export.parity.gate import Gate
from export.parity.images import sample_crops
from export.parity.metrics import compare
from export.parity.record import UnprovenError, proof
from export.variants import load
from models.bundle.bundle import Bundle
from models.checkpoint import load_module, save_weights
from models.common.errors import HalftoneError
from models.dataset import TRAINING_PICTURES, content_digest, images
from tests.commands import run
from tests.export.conftest import Exported
from tests.export.trained import trained_bundle

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def folder(artifacts: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default bundle and labelled pictures for it."""
    folder = tmp_path_factory.mktemp("int8")
    shutil.copytree(artifacts / NAME, folder / NAME)
    shutil.copytree(labelled, folder / "pictures")
    return folder


@pytest.fixture(scope="module")
def quantised(folder: Path) -> tuple[Bundle, list[Attempt]]:
    """The bundle with an INT8 graph, calibrated on sixteen pictures only."""
    bundle = Bundle.open(folder / NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.onnx.int8, "CALIBRATION_PICTURES", 16)
        # So few pictures are always near a limit: the search would go on.
        patch.setattr(export.onnx.int8, "_at_limit", lambda records, *, trained: [])
        attempts = export_int8(bundle, data=folder / "pictures", calibrate_on=None, report=lambda _: None)
    return bundle, attempts


def damage(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its classes shifted by one."""
    damaged = onnx.ModelProto()
    damaged.CopyFrom(graph)
    (weights,) = [each for each in damaged.graph.initializer if list(each.dims) == [1000, 1280]]
    weights.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weights), 1, axis=0), weights.name))
    return damaged


def test_int8_is_proved_by_each_runtime_that_runs_it(quantised: tuple[Bundle, list[Attempt]]) -> None:
    bundle, attempts = quantised

    assert int8_variants() == ["onnxruntime-int8", "openvino-int8"]
    for variant in int8_variants():
        record = proof(bundle, variant)
        assert record.source == "model.int8.onnx"
        assert record.runtime["executed_as"] == "int8 on CPU"
        assert record.gate["min_agreement"] == 0.96
    assert (attempts[0].kept, attempts[0].fp32_operators) == ("the first and the last layer", {"Conv": 1, "Gemm": 1})
    assert attempts[0].weight_bytes["INT8"] > 3_000_000


def test_every_activation_has_one_range(quantised: tuple[Bundle, list[Attempt]]) -> None:
    """With one range per channel, ONNX Runtime fails on MobileNetV3 and runs depthwise convolutions in FP32."""
    bundle, _ = quantised
    graph = onnx.load(bundle.folder / "model.int8.onnx").graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    quantisers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    scales = [node.input[1] for node in quantisers if node.input[0] not in constants]

    assert len(scales) > 30
    assert {constants[name].size for name in scales} == {1}


def test_the_record_says_what_calibrated_it(quantised: tuple[Bundle, list[Attempt]]) -> None:
    bundle, _ = quantised
    record = json.loads(bundle.read("model.int8.json"))

    assert record["calibration"].startswith("16 training pictures of the folder pictures, evenly spread, by NNCF 3")
    assert record["verdict"] == record["attempts"][-1]["verdict"] == "PASSED"
    assert set(record["attempts"][-1]["figures"]) == set(int8_variants())


def test_an_int8_graph_keeps_the_contract(quantised: tuple[Bundle, list[Attempt]]) -> None:
    bundle, _ = quantised
    graph = onnx.load_from_string(bundle.read("model.int8.onnx"))
    fp32 = onnx.load_from_string(bundle.read("model.fp32.onnx"))
    metadata, expected = ({e.key: e.value for e in each.metadata_props} for each in (graph, fp32))
    pixels = np.stack([crop for crop, _ in sample_crops(bundle.manifest.input, per_photo=1)])

    assert graph.graph.input == fp32.graph.input
    assert graph.graph.output == fp32.graph.output
    assert metadata == expected | {"halftone.precision": "int8"}
    for variant in int8_variants():
        runtime = load(bundle, variant, threads=2)
        together = runtime.run(pixels)
        assert (together.dtype, together.shape) == (np.float32, (8, 1000))
        np.testing.assert_allclose(runtime.run(pixels[:1]), together[:1], atol=0.2)


def test_a_stale_calibration_is_refused(quantised: tuple[Bundle, list[Attempt]]) -> None:
    bundle, _ = quantised
    graphs = [onnx.load_from_string(bundle.read(f"model.{precision}.onnx")) for precision in ("fp32", "int8")]
    pixels = np.stack([crop for crop, _ in sample_crops(bundle.manifest.input, per_photo=4)])
    (stale, strengths), gate = QUANTISED["stale calibration"], Gate.for_precision("int8")
    honest, damaged = graphs[1], stale(graphs[1], strengths[2])
    reference, *variants = (infer(graph, pixels, ["logits"])[0] for graph in (graphs[0], honest, damaged))

    reasons = [gate.reasons_to_fail(compare(reference, each, None), trained=True, few=True) for each in variants]

    assert not reasons[0]
    assert reasons[1]


def test_int8_that_fails_is_not_promoted(
    folder: Path, copied: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export.onnx.int8, "quantise", lambda graph, *_, **__: damage(graph))
    monkeypatch.setattr(export.onnx.int8, "int8_variants", lambda: ["onnxruntime-int8"])

    assert export_int8_and_print(copied, data=folder / "pictures", calibrate_on=None) == 1

    out = capsys.readouterr().out
    assert "FAILED: INT8 is not promoted (onnxruntime-int8: mean KL divergence" in out
    attempts = json.loads(copied.read("model.int8.json"))["attempts"]
    # Nothing is quantised here, so there is nothing to measure.
    assert [attempt["verdict"] for attempt in attempts] == ["FAILED"] * 2
    assert attempts[0]["fp32_nodes"] < attempts[1]["fp32_nodes"]
    with pytest.raises(UnprovenError, match="mean KL divergence"):
        proof(copied, "onnxruntime-int8")


@pytest.mark.parametrize(("better", "verdicts"), [(True, ["PASSED"] * 2), (False, ["PASSED", "FAILED", "PASSED"])])
def test_a_graph_at_the_limit_serves_only_if_no_other_is_better(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: bool, verdicts: list[str]
) -> None:
    source, graphs = exported("mobilenetv3_small", 96), list[onnx.ModelProto]()
    bundle = Bundle.open(shutil.copytree(source.folder, tmp_path / source.name))

    def without_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
        damaged = onnx.ModelProto()
        damaged.CopyFrom(graph)
        largest = max(damaged.graph.initializer, key=lambda each: np.prod(each.dims))
        largest.CopyFrom(numpy_helper.from_array(np.zeros(largest.dims, np.float32), largest.name))
        return damaged

    def second_is_damaged(graph: onnx.ModelProto, *_: Any, **__: Any) -> onnx.ModelProto:
        graphs.append(graph if better or not graphs else without_weights(graph))
        return graphs[-1]

    monkeypatch.setattr(export.onnx.int8, "CALIBRATION_PICTURES", 16)
    monkeypatch.setattr(export.onnx.int8, "quantise", second_is_damaged)
    monkeypatch.setattr(export.onnx.int8, "int8_variants", lambda: ["onnxruntime-int8"])
    monkeypatch.setattr(Gate, "at_limit", lambda *_, **__: [] if len(graphs) == 2 else ["agreement down to 0.95"])

    attempts = export_int8(bundle, data=None, calibrate_on=None, report=lambda _: None)

    assert [each.verdict for each in attempts] == verdicts
    assert attempts[0].at_limit == ["onnxruntime-int8: agreement down to 0.95"]
    assert attempts[-1].fp32_nodes == attempts[1 if better else 0].fp32_nodes
    assert proof(bundle, "onnxruntime-int8").verdict == "PASSED"


@pytest.fixture
def spoilt(tmp_path: Path) -> Bundle:
    """A ResNet-18 with four channels that are 10,000 times as large as the others, until the next layer divides.

    In FP32 the answers are as before; 8 bits with one range keep nothing of the other channels.
    """
    bundle = trained_bundle(tmp_path / "mine", "resnet18", 64)
    module = load_module(bundle)
    block = module.get_submodule("layer3.1")
    norm, after, conv = (block.get_submodule(name) for name in ("bn1", "bn2", "conv2"))
    with torch.no_grad():
        # The first weights leave a block out.
        after.weight.fill_(1)  # type: ignore[operator]
        for tensor in (norm.weight, norm.bias):
            tensor[:4].mul_(1e4)  # type: ignore[index]
        conv.weight[:, :4].div_(1e4)  # type: ignore[index]
    save_weights(bundle, module, made_by="a test")
    export_onnx(bundle, "fp32")
    return bundle


def test_layers_that_8_bits_ruin_are_found_and_only_those_stay_fp32(
    spoilt: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.onnx.int8, "CALIBRATION_PICTURES", 16)
    monkeypatch.setattr(export.onnx.int8, "int8_variants", lambda: ["onnxruntime-int8"])

    first, second, last = export_int8(spoilt, data=None, calibrate_on=None, report=lambda _: None)

    graph = onnx.load_from_string(spoilt.read("model.fp32.onnx")).graph
    multiplies, divides = (
        next(node.name for node in graph.node if f"network.layer3.1.conv{number}.weight" in node.input)
        for number in (1, 2)
    )
    assert [each.verdict for each in (first, second, last)] == ["FAILED", "FAILED", "PASSED"]
    assert set(second.fp32_names) - set(first.fp32_names) == {divides}
    assert set(last.fp32_names) - set(first.fp32_names) == {multiplies, divides}
    assert last.kept == "the first and the last layer and the 2 nodes whose quantisation disturbs most"


def test_more_is_kept_until_half_of_the_weights_would_be_fp32(exported: Exported) -> None:
    graph = onnx.load_from_string(exported("resnet18", 64).read("model.fp32.onnx"))
    order = [layer[0] for layer in layers(graph)]

    kept = [names for _, names in candidates(graph, lambda: order)]

    # The last four of nineteen layers between the ends hold three quarters of the weights.
    assert [len(names) for names in kept] == [2, 3, 4, 6, 10]
    assert kept[-1] == [order[0], order[-1], *order[1:9]]
    assert len(list(candidates(graph, lambda: order[::-1]))) < len(kept)


def test_what_is_a_part_of_what_was_not_enough_is_not_tried(exported: Exported) -> None:
    graph = onnx.load_from_string(exported("mobilenetv3_small", 96).read("model.fp32.onnx"))
    (_, ends), (_, cheap) = candidates(graph, lambda: [])
    depthwise = cheap[len(ends) :]
    other = next(node.name for node in graph.graph.node if node.op_type == "Conv" and node.name not in cheap)

    *before, (words, kept) = candidates(graph, lambda: [depthwise[0], other])

    assert [names for _, names in before] == [ends, cheap]
    assert kept == [*ends, depthwise[0], other]
    assert words == "the first and the last layer and the 2 nodes whose quantisation disturbs most"


def test_openvino_refuses_a_graph_without_integer_layers(copied: Bundle) -> None:
    copied.write("model.int8.onnx", copied.read("model.fp32.onnx"), made_by="`make it`", made_from=["model.fp32.onnx"])

    with pytest.raises(HalftoneError, match=r"int8.*OpenVINO would run fp32 on CPU"):
        load(copied, "openvino-int8", threads=2)


def test_without_nncf(copied: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)

    with pytest.raises(HalftoneError, match=r"INT8 needs the package nncf.*`pip install nncf`"):
        export_int8(copied, data=None, calibrate_on=None, report=lambda _: None)


def test_calibration_sees_other_windows_than_a_proof(default: Bundle) -> None:
    spec = default.manifest.input

    pictures = calibration_pictures(default, None, None, count=24)

    proof_crops = {crop.tobytes() for crop, _ in sample_crops(spec)}
    assert pictures.pixels.shape == (24, spec.size, spec.size, 3)
    assert not proof_crops & {each.tobytes() for each in pictures.pixels}
    assert "other windows than a proof's" in pictures.description


def test_calibration_takes_the_training_split_of_every_class(folder: Path, default: Bundle) -> None:
    pictures = calibration_pictures(default, folder / "pictures", None, count=300)

    assert pictures.pixels.shape == (16, 96, 96, 3)
    assert pictures.description == "16 training pictures of the folder pictures, evenly spread"


@pytest.mark.parametrize(
    ("data", "calibrate_on", "words"),
    [
        ("pictures", "pictures/val", "shares pictures"),
        ("pictures", "pictures", "shares pictures"),
        (None, NAME, r"only 0 readable.*at least 16"),
        (None, "nowhere", "no such folder"),
    ],
)
def test_calibration_refuses(
    folder: Path, default: Bundle, data: str | None, calibrate_on: str | None, words: str
) -> None:
    paths = [None if each is None else folder / each for each in (data, calibrate_on)]

    with pytest.raises(HalftoneError, match=words):
        calibration_pictures(default, paths[0], paths[1], count=32)


def test_calibration_on_a_folder_without_parts_takes_what_the_model_was_trained_on(
    folder: Path, copied: Bundle, tmp_path: Path
) -> None:
    whole, seen = (
        shutil.copytree(folder / "pictures" / "val", tmp_path / "whole"),
        images(folder / "pictures" / "train"),
    )
    for path in seen:
        target = whole / path.parent.name / f"seen {path.name}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    digests = sorted(int.from_bytes(content_digest(path.read_bytes()), "little") for path in seen)
    copied.write(TRAINING_PICTURES, np.array(digests, "<u8").tobytes(), made_by="a test")

    pictures = calibration_pictures(copied, whole, None, count=300)

    expected = calibration_pictures(copied, None, folder / "pictures" / "train", count=300)
    assert pictures.description == "16 training pictures of the folder whole, evenly spread"
    assert {each.tobytes() for each in pictures.pixels} == {each.tobytes() for each in expected.pixels}


def test_a_class_with_the_name_of_a_part_does_not_calibrate(folder: Path, copied: Bundle, tmp_path: Path) -> None:
    """Pictures of trains, beside those of other vehicles, are in the proof too."""
    vehicles = tmp_path / "vehicles"
    for label in ("train", "tram"):
        (vehicles / label).mkdir(parents=True)
        for path in images(folder / "pictures" / "val"):
            shutil.copy(path, vehicles / label / path.name)

    assert "sample photographs" in calibration_pictures(copied, vehicles, None, count=32).description


@pytest.mark.parametrize("data", ["pictures/val", NAME])
def test_calibration_takes_the_sample_photographs_where_no_training_picture_is_known(
    folder: Path, default: Bundle, data: str
) -> None:
    assert "sample photographs" in calibration_pictures(default, folder / data, None, count=32).description


def openvino(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("export.openvino", "--model", NAME, *arguments, env=os.environ | {"HALFTONE_ARTIFACTS": str(folder)})


def test_the_openvino_command_makes_what_is_missing_and_proves_it(folder: Path, copied: Bundle) -> None:
    manifest = json.loads((copied.folder / "manifest.json").read_text())
    del manifest["files"]["model.fp32.onnx"], manifest["files"]["parity/openvino-fp32.json"]
    (copied.folder / "manifest.json").write_text(json.dumps(manifest))

    result = openvino(copied.folder.parent, "--precision", "fp32", "--data", str(folder / "pictures"))

    assert result.returncode == 0, result.stderr
    assert "PASSED" in result.stdout
    assert proof(Bundle.open(copied.folder), "openvino-fp32").data["labelled"]


def test_the_openvino_command_says_no_to_a_damaged_graph(folder: Path, copied: Bundle) -> None:
    old = copied.manifest.files["model.fp32.onnx"]
    graph = damage(onnx.load_from_string(copied.read("model.fp32.onnx")))
    copied.write("model.fp32.onnx", graph.SerializeToString(), made_by=old.made_by, made_from=list(old.made_from))

    result = openvino(copied.folder.parent, "--precision", "fp32", "--data", str(folder / "pictures"))

    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "FAILED openvino-fp32: mean KL divergence" in result.stderr


def test_where_a_part_of_the_network_can_not_be_run_biases_are_corrected_fast(
    default: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As NNCF and ONNX Runtime did with a ResNet-18 of 64 px.
    with suppress_output():
        nncf = importlib.import_module("nncf")
    fast_corrections = []
    quantize = nncf.quantize

    def fails(*arguments: Any, fast_bias_correction: bool, **options: Any) -> Any:
        fast_corrections.append(fast_bias_correction)
        if not fast_bias_correction:
            raise RuntimeError("Failed to find node output or a constant initializer producing output: getitem_18.")
        return quantize(*arguments, fast_bias_correction=True, **options)

    monkeypatch.setattr(nncf, "quantize", fails)
    graph = onnx.load_from_string(default.read("model.fp32.onnx"))
    pixels = np.stack([crop for crop, _ in itertools.islice(sample_crops(default.manifest.input), 2)])

    made = quantise(graph, pixels, [], transformer=False)

    assert fast_corrections == [False, True]
    assert any(node.op_type == "QuantizeLinear" for node in made.graph.node)
