"""Export of families with attention over windows or pooled keys, and refusal of FP16 graphs that are not FP16."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from onnx import helper, numpy_helper

import export.onnx.export
import export.onnx.tracing
from export.onnx.export import export_onnx
from export.onnx.metadata import precision_histogram
from export.variants import load
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from tests.export.explain.maps import check_maps
from tests.export.trained import trained_bundle
from tests.samples import noise

SIZE = 112
"""A quarter of the published pixels, which windows of 7 and patches of 16 divide too."""


@pytest.mark.parametrize(
    ("name", "depth", "method"),
    [
        # Equal blocks take most of the time to trace.
        ("deit_ti16", {"depth": 3}, "attention rollout"),
        ("swin_t", {"depths": (2, 2, 2, 2)}, "class activation map"),
        ("pvt_v2_b0", {"depths": (1, 1, 2, 1)}, "class activation map"),
    ],
)
def test_the_graph_answers_and_explains_as_the_network(
    name: str, depth: dict[str, Any], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, **depth))
    bundle = trained_bundle(tmp_path / "mine", name, SIZE)
    pixels = np.stack([noise(SIZE, SIZE), noise(SIZE, SIZE)[::-1], np.full((SIZE, SIZE, 3), 128, np.uint8)])

    assert export_onnx(bundle, "fp32") == "model.fp32.onnx"

    expected = load(bundle, "torch-fp32", threads=2).run(pixels)
    runtime = load(bundle, "onnxruntime-fp32", threads=2)
    for batch in (1, 3):
        np.testing.assert_allclose(runtime.run(pixels[:batch]), expected[:batch], atol=1e-4)
    # The difference counts against the spread of the answers as well.
    assert np.abs(runtime.run(pixels) - expected).max() <= 1e-3 * expected.std()
    assert bundle.has("model.fp32.onnx")
    check_maps(bundle, tmp_path, monkeypatch, method)


def test_the_session_offers_the_contract(default: Bundle) -> None:
    for precision in ("fp32", "fp16"):
        session = onnxruntime.InferenceSession(
            default.read(f"model.{precision}.onnx"), providers=["CPUExecutionProvider"]
        )
        (source,), (target,) = session.get_inputs(), session.get_outputs()
        metadata = session.get_modelmeta().custom_metadata_map

        assert (source.name, source.type, source.shape) == ("pixels", "tensor(uint8)", ["batch", 96, 96, 3])
        assert (target.name, target.type, target.shape) == ("logits", "tensor(float)", ["batch", 1000])
        assert metadata["halftone.weights_sha256"] == default.manifest.files[WEIGHTS].sha256
        assert metadata["halftone.version"] == default.manifest.version
        assert metadata["halftone.precision"] == precision


def test_the_cast_comes_before_the_transpose(default: Bundle) -> None:
    """TensorRT accepts uint8 only as the input of a cast."""
    graph = onnx.load_from_string(default.read("model.fp32.onnx")).graph

    # `Shape` reads the batch size and none of the pixels.
    assert {node.op_type for node in graph.node if "pixels" in node.input} - {"Shape"} == {"Cast"}


def test_nothing_of_the_machine_that_exported_is_in_the_graph(default: Bundle) -> None:
    data = default.read("model.fp32.onnx")

    assert str(Path(torch.__file__).parent).encode() not in data
    assert str(Path(export.onnx.__file__).parent.parent).encode() not in data


def test_half_the_bytes(default: Bundle) -> None:
    whole, half = (
        precision_histogram(onnx.load_from_string(default.read(f"model.{precision}.onnx")))
        for precision in ("fp32", "fp16")
    )

    assert set(half) >= {"FLOAT16"}
    # Normalisation stays FP32: six numbers.
    assert half.get("FLOAT", 0) < 200
    assert abs(half["FLOAT16"] * 2 - whole["FLOAT"]) < 1000


def test_weights_are_counted_in_bytes_by_type() -> None:
    arrays = {"a": np.zeros(3, np.float32), "b": np.zeros((2, 2), np.float16), "c": np.zeros(1, np.float16)}
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]

    histogram = precision_histogram(helper.make_model(helper.make_graph([], "g", [], [], tensors)))

    assert histogram == {"FLOAT": 12, "FLOAT16": 10}


def test_fp16_that_came_out_fp32_is_refused(copied: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copied.manifest.files["model.fp16.onnx"]
    # An exporter that quietly keeps FP32.
    monkeypatch.setattr(export.onnx.tracing, "traced", lambda *_: onnx.load_from_string(copied.read("model.fp32.onnx")))

    with pytest.raises(HalftoneError, match=r"only 0\.0% of the graph's weights are FP16.*--precision fp32"):
        export_onnx(copied, "fp16")

    assert Bundle.open(copied.folder).manifest.files["model.fp16.onnx"] == before


def test_an_unknown_precision(default: Bundle) -> None:
    with pytest.raises(HalftoneError, match="precision must be one of fp32, fp16, not 'fp8'"):
        export_onnx(default, "fp8")  # type: ignore[arg-type]
