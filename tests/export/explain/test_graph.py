"""Heat maps without torch are the library's: class activation maps equal Grad-CAM, and attention is rolled out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.explain import heat
from export.explain.explainer import Explainer
from export.explain.graph import export_explanation, extend
from export.explain.heat import CELLS, HeatMaps, enlarged, occluded
from export.parity.record import UnprovenError
from models.bundle.bundle import EXPLAIN, Bundle
from models.preprocess.transform import load
from tests.export.conftest import Exported
from tests.export.explain.maps import check_maps
from tests.samples import noise
from tests.servers import PHOTOS


@pytest.mark.parametrize(
    ("network", "size", "method"),
    [("resnet18", 64, "class activation map"), ("vit_ti16", 112, "attention rollout")],
)
def test_the_map_is_the_librarys(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, size: int, method: str
) -> None:
    check_maps(exported(network, size), tmp_path, monkeypatch, method)


def test_the_default_models_maps_are_grad_cams(default: Bundle) -> None:
    maps, explainer = HeatMaps(default), Explainer(default)
    pixels = load((PHOTOS / "cat.jpg").read_bytes(), default.manifest.input)

    assert maps.method == "class activation map"
    assert default.manifest.files[EXPLAIN].made_from.keys() == {"model.fp32.onnx"}
    for index in (None, default.manifest.labels.index("espresso")):
        found, expected = maps.explain(pixels, index), explainer.explain(pixels[np.newaxis], index)
        assert found.index == (expected.logits[0].argmax() if index is None else index)
        np.testing.assert_allclose(enlarged(found.map, len(pixels)), expected.maps[0], atol=1e-3)
        assert found.map.max() == 1


def test_a_network_with_layers_after_its_pooling_has_no_graph(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Occlusion explains it instead: the map is what each place takes from the class's probability."""
    bundle = exported("mobilenetv3_small", 96)
    before = onnx.load_from_string(bundle.read("model.fp32.onnx"))
    graph = onnx.ModelProto.FromString(before.SerializeToString())
    for name in ("proof", "check_runtime"):
        monkeypatch.setattr(heat, name, lambda *arguments: None)

    assert extend(graph) is None
    assert export_explanation(bundle) is None
    assert graph == before
    maps, pixels = HeatMaps(bundle), noise(96, 96)
    found, other = maps.explain(pixels), maps.explain(pixels, 2)
    assert maps.method == "occlusion"
    assert found.map.shape == (CELLS, CELLS)
    assert found.map.max() == 1
    assert 0 < found.probability <= 1
    assert other.index == 2
    assert not np.array_equal(found.map, other.map)


@pytest.mark.parametrize("size", [32, 33, 224])
def test_every_pixel_is_covered_by_some_place(size: int) -> None:
    pixels = noise(size, size)
    copies = occluded(pixels)

    assert copies.shape == (CELLS * CELLS, size, size, 3)
    assert (copies != pixels).any(axis=(0, 3)).all()
    assert all((copy == pixels).any() for copy in copies)


def test_an_unproven_graph_does_not_explain(exported: Exported) -> None:
    with pytest.raises(UnprovenError, match="has no proof"):
        HeatMaps(exported("resnet18", 64))


def test_graphs_of_other_forms_stay_as_they_are() -> None:
    pixels, logits = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("pixels", "logits"))
    model = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["pixels"], ["logits"])], "g", [pixels], [logits])
    )

    assert extend(model) is None


def test_the_graphs_maps_need_no_torch() -> None:
    script = "import sys, export.explain.heat\nprint(*{'torch', 'onnx', 'timm'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert result.stdout.split() == []
