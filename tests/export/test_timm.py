"""Networks of timm's registry through export, proof and explanations."""

import os
from pathlib import Path

import numpy as np
import pytest

from export.explain.explainer import Explainer
from export.onnx import tracing
from export.onnx.export import export_onnx
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.resolve import open_or_create
from tests.commands import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    return tmp_path


def test_a_graph_gives_the_same_and_is_explained(home: Path) -> None:
    bundle = open_or_create("timm:test_convnext", weights="random")
    export_onnx(bundle, "fp32")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), dtype=np.uint8)

    ours, reference = (load(bundle, each, threads=1).run(pixels) for each in ("onnxruntime-fp32", "torch-fp32"))

    np.testing.assert_allclose(ours, reference, atol=1e-4)
    explanation = Explainer(bundle).explain(pixels[:1])
    assert (explanation.method, explanation.maps.shape) == ("Grad-CAM", (1, 160, 160))
    assert "(test_convnext.r160_in1k)" in bundle.read("README.md").decode()


def test_a_network_without_a_grid_is_explained_by_occlusion(home: Path) -> None:
    explainer = Explainer(open_or_create("timm:levit_128s", weights="random"))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)

    explanation = explainer.explain(pixels, 3)

    assert explanation.method == explainer.method == "occlusion"
    assert (explanation.maps.shape, explanation.maps.max()) == ((1, 224, 224), 1)
    with pytest.raises(HalftoneError, match="omit it for occlusion"):
        explainer.attention(pixels, 1)


def test_a_network_that_pytorch_can_not_export(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no operator\nfor this")

    monkeypatch.setattr(tracing.torch.onnx, "export", fail)

    result = run("export.onnx", "--model", "timm:test_convnext", "--weights", "random", env=dict(os.environ))

    assert result.returncode == 2
    assert (
        "can't export timm:test_convnext.r160_in1k to ONNX in FP32 (RuntimeError: no operator for this)"
        in result.stderr
    )
    with pytest.raises(HalftoneError, match="choose another architecture"):
        export_onnx(Bundle.open(home / "timm-test_convnext"), "fp32")
