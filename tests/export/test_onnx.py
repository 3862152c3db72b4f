"""Every family exports to the graph contract: uint8 pixels of any batch size in, FP32 logits out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.onnx import export_onnx, precision_histogram
from export.runtimes.registry import load
from models.bundle import Bundle
from models.errors import HalftoneError
from models.opening import open_or_create
from tests.servers import ROOT

FAMILIES = ["resnet18", "mobilenetv3_small", "vit_ti16"]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_export_in_both_precisions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    bundle = open_or_create(name, weights="random")
    size = bundle.manifest.input.size
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    expected = load(bundle, "torch-fp32", threads=2).run(pixels)

    for precision, tolerance in (("fp32", 1e-4), ("fp16", 5e-2)):
        graph = onnx.load_from_string(bundle.read(export_onnx(bundle, precision)))  # type: ignore[arg-type]
        runtime = load(bundle, f"onnxruntime-{precision}", threads=2)
        (source,), (target,) = graph.graph.input, graph.graph.output
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
        shape = [dimension.dim_value or dimension.dim_param for dimension in source.type.tensor_type.shape.dim]

        assert (source.name, source.type.tensor_type.elem_type) == ("pixels", onnx.TensorProto.UINT8)
        assert (target.name, target.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
        assert isinstance(shape[0], str)
        assert shape[1:] == [size, size, 3]
        assert json.loads(metadata["halftone.labels"]) == list(bundle.manifest.labels)
        assert metadata["halftone.weights_sha256"] == bundle.manifest.files["weights.safetensors"].sha256
        assert max(precision_histogram(graph), key=precision_histogram(graph).__getitem__) == (
            "FLOAT" if precision == "fp32" else "FLOAT16"
        )
        np.testing.assert_allclose(runtime.run(pixels), expected, atol=tolerance * max(1, np.abs(expected).max()))


def test_equal_weights_make_an_equal_version(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))

    again = open_or_create("efficientnet_lite0", weights=None)

    assert again.manifest.version == Bundle.open(artifacts / "efficientnet_lite0").manifest.version


def test_weights_for_a_bundle_that_has_its_own_are_refused(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))

    with pytest.raises(HalftoneError, match="has weights already"):
        open_or_create("efficientnet_lite0", weights="random")


def test_an_unknown_model_is_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "export.onnx", "--model", "resnet5"],
        cwd=ROOT,
        env=os.environ | {"HALFTONE_ARTIFACTS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "resnet50" in result.stderr
    assert list(tmp_path.iterdir()) == []
