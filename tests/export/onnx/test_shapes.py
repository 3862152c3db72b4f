"""Exported graphs give the network's logits for any batch, images of any shape, and other sizes than published."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image

from export.onnx.export import STRUCTURE, Precision, export_onnx, graph_bytes
from export.onnx.metadata import precision_histogram
from export.onnx.tracing import OPSET
from export.variants import load
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError
from models.preprocess.transform import load as load_picture
from models.spec import InputSpec
from tests.export.conftest import NAME, Exported
from tests.export.trained import trained_bundle
from tests.samples import encoded, noise
from tests.servers import PHOTOS

MAX_BATCH = 17
# For logits with a standard deviation of three: FP32 within rounding, FP16 with the roundings of all layers.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.2}
# At sides that their stages divide evenly; vit_ti16's positions are resampled for it.
NETWORKS = {"resnet18": 64, "mobilenetv3_small": 96, "vit_ti16": 112}
ORIGINALS = [(333, 517), (601, 97), (225, 224), (31, 640), (1, 1)]


def pictures(spec: InputSpec) -> npt.NDArray[np.uint8]:
    """MAX_BATCH images as a client would send them: photographs, and files of odd shapes."""
    files = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    for height, width in ORIGINALS:
        image = Image.fromarray(noise(height, width))
        files += [encoded(image, "PNG"), encoded(image, "WEBP", quality=80)]
    return np.stack([load_picture(file, spec) for file in files])[:MAX_BATCH]


@pytest.fixture(scope="module", params=NETWORKS)
def bundle(request: pytest.FixtureRequest, exported: Exported) -> Bundle:
    return exported(request.param, NETWORKS[request.param])


@pytest.mark.parametrize("precision", TOLERANCE)
def test_any_batch_of_any_pictures(bundle: Bundle, precision: Precision) -> None:
    pixels = pictures(bundle.manifest.input)
    expected = load(bundle, "torch-fp32", threads=2).run(pixels)
    runtime = load(bundle, f"onnxruntime-{precision}", threads=2)
    assert len(pixels) == MAX_BATCH
    # The images have different classes, so that agreement means something.
    assert expected.std(axis=0).max() > 0.1

    for batch in (1, 3, MAX_BATCH):
        np.testing.assert_allclose(runtime.run(pixels[:batch]), expected[:batch], atol=TOLERANCE[precision], rtol=1e-4)
    np.testing.assert_allclose(runtime.run(pixels[-1:]), expected[-1:], atol=TOLERANCE[precision], rtol=1e-4)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_graph_is_valid_and_whole(bundle: Bundle, precision: Precision) -> None:
    data = bundle.read(f"model.{precision}.onnx")
    graph = onnx.load_from_string(data)
    size = bundle.manifest.input.size

    onnx.checker.check_model(graph, full_check=True)
    onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True)
    assert {entry.domain: entry.version for entry in graph.opset_import} == {"": OPSET}
    assert external_locations(data) == []
    (source,), (target,) = graph.graph.input, graph.graph.output
    shape = source.type.tensor_type.shape.dim
    assert (source.name, source.type.tensor_type.elem_type) == ("pixels", onnx.TensorProto.UINT8)
    assert (target.name, target.type.tensor_type.elem_type) == ("logits", onnx.TensorProto.FLOAT)
    assert shape[0].dim_param
    assert [dimension.dim_value for dimension in shape[1:]] == [size, size, 3]


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_graph_says_what_it_is_of(bundle: Bundle, precision: Precision) -> None:
    graph = onnx.load_from_string(bundle.read(f"model.{precision}.onnx"))
    metadata, sizes = {entry.key: entry.value for entry in graph.metadata_props}, precision_histogram(graph)

    assert json.loads(metadata["halftone.labels"]) == list(bundle.manifest.labels)
    assert metadata["halftone.weights_sha256"] == bundle.manifest.files[WEIGHTS].sha256
    assert max(sizes, key=sizes.__getitem__) == ("FLOAT" if precision == "fp32" else "FLOAT16")


def test_a_size_that_the_patches_do_not_divide(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path / "mine", "vit_ti16", 64)
    values = vars(bundle.manifest) | {"input": InputSpec(size=70)}
    bundle.manifest = type(bundle.manifest)(**values)

    with pytest.raises(HalftoneError, match=r"vit_ti16 does not support an input of 70 x 70 pixels"):
        export_onnx(bundle, "fp32")


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_size_of_the_file_is_known_before(bundle: Bundle, precision: Precision) -> None:
    """Masks and position tables, which tracing folds into constants, fit into the margin of the estimate."""
    size = bundle.manifest.files[f"model.{precision}.onnx"].size

    assert graph_bytes(bundle, precision) - STRUCTURE - 2**20 < size < graph_bytes(bundle, precision)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_default_takes_any_batch_of_any_pictures(artifacts: Path, precision: Precision) -> None:
    default = Bundle.open(artifacts / NAME)
    pixels = pictures(default.manifest.input)
    expected = load(default, "torch-fp32", threads=2).run(pixels)
    runtime = load(default, f"onnxruntime-{precision}", threads=2)

    for batch in (1, 3, MAX_BATCH):
        np.testing.assert_allclose(runtime.run(pixels[:batch]), expected[:batch], atol=TOLERANCE[precision], rtol=1e-4)
