"""Test that plans are built without a GPU and described, and that no plan of another precision is built."""

import _thread
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import Progress, TaskID

import export.onnx.export
from export.trt.__main__ import TrtConfig, _main
from export.trt.builder import TURING, targets
from export.trt.library import Library, known_capabilities, library
from export.trt.plan import choose, export_plan
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from tests.commands import run
from tests.export.simulated_gpu import VERSION, Cuda, tensorrt

PLAN, SIDECAR = "engines/tensorrt_rtx-fp16.plan", "engines/tensorrt_rtx-fp16.json"


@pytest.fixture
def rtx() -> Library:
    """Import the installed TensorRT for RTX."""
    return library("tensorrt_rtx")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine without a GPU."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Cuda(None))


@pytest.fixture
def without_cache() -> Iterator[None]:
    """Import the libraries again."""
    library.cache_clear()
    yield
    library.cache_clear()


def built(bundle: Bundle, edition: Library, precision: str = "fp16", *capabilities: str) -> Sidecar:
    with Progress(console=Console(quiet=True), disable=True) as progress:
        return export_plan(
            bundle,
            edition,
            precision,  # type: ignore[arg-type]
            profile=Profile(minimum=1, optimum=2, maximum=4),
            capabilities=targets(edition, capabilities),
            requested=capabilities,
            progress=progress,
        )


def replace_graph(bundle: Bundle, nodes: list[onnx.NodeProto], batch: int | str = "batch") -> None:
    """Replace the FP16 graph by a graph of these nodes."""
    source = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [batch, 96, 96, 3])
    target = helper.make_tensor_value_info("logits", TensorProto.FLOAT16, None)
    constants = [
        helper.make_tensor("matrix", TensorProto.FLOAT16, [96 * 96 * 3, 1], [1.0] * (96 * 96 * 3)),
        helper.make_tensor("two", TensorProto.INT64, [2], [2, 96 * 96 * 3]),
    ]
    graph = helper.make_graph(nodes, "g", [source] if nodes else [], [target] if nodes else [], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    old = bundle.manifest.files["model.fp16.onnx"]
    bundle.write("model.fp16.onnx", model.SerializeToString(), made_by=old.made_by, made_from=list(old.made_from))


def command(bundle: Bundle, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"HALFTONE_ARTIFACTS": str(bundle.folder.parent), "CUDA_VISIBLE_DEVICES": ""}
    return run("export.trt", "--model", bundle.manifest.name, *arguments, env=os.environ | environment)


def test_a_plan_and_its_description(copied: Bundle, rtx: Library) -> None:
    sidecar = built(copied, rtx, "fp16", "8.9", "8.6")

    files = copied.manifest.files
    assert Sidecar.from_json(copied.read(SIDECAR)) == sidecar
    assert (sidecar.runtime, sidecar.version, sidecar.precision) == ("tensorrt_rtx", rtx.version, "fp16")
    assert sidecar.compute_capabilities == ("8.6", "8.9")
    assert sidecar.profile == Profile(minimum=1, optimum=2, maximum=4)
    assert (sidecar.onnx, sidecar.onnx_sha256) == ("model.fp16.onnx", files["model.fp16.onnx"].sha256)
    assert (sidecar.plan_sha256, sidecar.size) == (files[PLAN].sha256, len(copied.read(PLAN)))
    # The plan contains the weights, as FP16.
    assert 0.9 < sidecar.size / files["model.fp16.onnx"].size < 1.2
    assert sidecar.model_version == copied.manifest.version
    assert sidecar.histogram["CONVOLUTION"] == {"HALF": 49}
    assert sidecar.histogram["MATRIX_MULTIPLY"] == {"HALF": 1}
    assert sidecar.build_seconds > 0
    assert files[PLAN].made_from == {
        WEIGHTS: files[WEIGHTS].sha256,
        "model.fp16.onnx": files["model.fp16.onnx"].sha256,
    }
    assert files[SIDECAR].made_by == (
        "`python -m export.trt --model efficientnet_lite0 --precision fp16 --runtime tensorrt_rtx "
        "--min-batch 1 --opt-batch 2 --max-batch 4 --compute-capability 8.9 8.6`"
    )


def test_the_histogram_is_that_of_the_graph(copied: Bundle, rtx: Library) -> None:
    sidecar = built(copied, rtx, "fp32", "8.9")

    nodes = [node.op_type for node in onnx.load_from_string(copied.read("model.fp32.onnx")).graph.node]
    assert sidecar.histogram["CONVOLUTION"] == {"FLOAT": nodes.count("Conv")}
    assert sidecar.histogram["MATRIX_MULTIPLY"] == {"FLOAT": nodes.count("Gemm") + nodes.count("MatMul")}


def test_a_graph_of_another_precision_is_an_error_and_leaves_nothing(copied: Bundle, rtx: Library) -> None:
    # The result of an exporter that silently keeps FP32 when FP16 was requested.
    old = copied.manifest.files["model.fp16.onnx"]
    copied.write("model.fp16.onnx", copied.read("model.fp32.onnx"), made_by=old.made_by, made_from=list(old.made_from))

    with pytest.raises(
        HalftoneError, match=r"FP16 was requested, but .* model\.fp16\.onnx are 50 FLOAT: export the gr"
    ):
        built(copied, rtx)

    assert not (copied.folder / "engines").exists()
    assert PLAN not in Bundle.open(copied.folder).manifest.files


def test_a_graph_of_older_weights_is_exported_first(
    copied: Bundle, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = copied.read("model.fp16.onnx")
    copied.write(WEIGHTS, b"new weights", made_by="a test")
    exported: list[str] = []

    def export_onnx(bundle: Bundle, precision: str) -> None:
        exported.append(precision)
        bundle.write("model.fp16.onnx", graph, made_by="a test", made_from=[WEIGHTS])

    monkeypatch.setattr(export.onnx.export, "export_onnx", export_onnx)

    built(copied, rtx)
    built(copied, rtx)

    assert exported == ["fp16"]
    assert copied.has(PLAN)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "it contains no network"),
        ([helper.make_node("Guess", ["pixels"], ["logits"])], "Guess"),
        # TensorRT accepts uint8 only as the input of a cast.
        ([helper.make_node("Transpose", ["pixels"], ["logits"], perm=[0, 3, 1, 2])], "has type UInt8 but must have"),
    ],
)
def test_an_unreadable_graph(copied: Bundle, rtx: Library, nodes: list[onnx.NodeProto], words: str) -> None:
    replace_graph(copied, nodes)

    with pytest.raises(HalftoneError, match=rf"tensorrt_rtx .* can't read model\.fp16\.onnx: .*{words}") as caught:
        built(copied, rtx)
    assert "\n" not in str(caught.value)


def test_a_failed_build_names_the_reason(copied: Bundle, rtx: Library) -> None:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Reshape", ["half", "two"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["logits"]),
    ]
    # A graph that was traced for a fixed batch size of two.
    replace_graph(copied, nodes, batch=2)

    with pytest.raises(HalftoneError, match=r"tensorrt_rtx .* can't build model\.fp16\.onnx: (?!it gave no)"):
        built(copied, rtx)
    assert not (copied.folder / "engines").exists()


def test_the_target_gpus(rtx: Library) -> None:
    known = known_capabilities(rtx)
    assert {TURING, "8.0", "8.6", "8.9", "12.0"} <= set(known)
    assert targets(rtx, ()) == tuple(each for each in known if each != TURING)
    assert targets(rtx, ("8.9", TURING)) == (TURING, "8.9")
    with pytest.raises(HalftoneError, match=r"can't build for compute capability 9\.0, x: choose from 7\.5, 8\.0"):
        targets(rtx, ("8.9", "9.0", "x"))


def test_an_interrupt_stops_the_build(copied: Bundle, rtx: Library) -> None:
    phases = []

    class Interrupted(Progress):
        """Progress bars of a user who presses Ctrl-C as soon as the first bar appears."""

        def add_task(self, *arguments: Any, **options: Any) -> TaskID:
            phases.append(arguments[0])
            if len(phases) == 1:
                _thread.interrupt_main()
            return super().add_task(*arguments, **options)

    with pytest.raises(KeyboardInterrupt), Interrupted(console=Console(quiet=True)) as progress:
        export_plan(copied, rtx, "fp16", profile=Profile(), capabilities=("8.9",), progress=progress)

    assert phases[0] == "Building engine"
    assert not (copied.folder / "engines").exists()


@pytest.mark.parametrize("sizes", [(0, 8, 64), (1, 65, 64), (9, 8, 64), (-1, -1, -1)])
def test_batch_sizes_are_in_order(sizes: tuple[int, int, int]) -> None:
    smallest, best, largest = sizes
    with pytest.raises(HalftoneError, match=r"1 <= --min-batch <= --opt-batch <= --max-batch, not"):
        TrtConfig(model="x", min_batch=smallest, opt_batch=best, max_batch=largest)


@pytest.mark.usefixtures("no_gpu", "without_cache")
def test_without_a_gpu_the_edition_is_the_one_that_needs_none() -> None:
    assert choose("auto").name == "tensorrt_rtx"


@pytest.mark.usefixtures("no_gpu", "without_cache")
def test_no_edition_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(HalftoneError, match=r"`pip install tensorrt-rtx-cu13`.*`pip install 'tensorrt>=11'`"):
        choose("auto")
    with pytest.raises(HalftoneError, match=r"tensorrt_rtx needs .* not installed: `pip install 'tensorrt-rtx-cu13'`"):
        choose("tensorrt_rtx")
    with pytest.raises(HalftoneError, match=r"tensorrt needs .* not installed: `pip install 'tensorrt>=11'`"):
        choose("tensorrt")


@pytest.mark.usefixtures("without_cache")
def test_the_other_edition_builds_for_the_gpu_that_is_there(copied: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda("9.0")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(cuda, [], (1, 4)))
    edition = choose("auto")

    sidecar = built(copied, edition)

    assert (sidecar.runtime, sidecar.version, sidecar.compute_capabilities) == ("tensorrt", VERSION, ("9.0",))
    assert copied.has("engines/tensorrt-fp16.plan")
    with pytest.raises(
        HalftoneError, match=r"only for the GPU of this machine \(compute capability 9\.0\), not for 8\.9"
    ):
        built(copied, edition, "fp16", "8.9")
    cuda.capability = None
    with pytest.raises(HalftoneError, match=r"no CUDA GPU"):
        built(copied, edition)


@pytest.mark.usefixtures("without_cache")
def test_an_old_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    old = tensorrt(Cuda(None), [], (1, 4))
    vars(old)["__version__"] = "10.13.0.35"
    monkeypatch.setitem(sys.modules, "tensorrt", old)

    with pytest.raises(HalftoneError, match=r"TensorRT 10\.13\.0\.35 is too old, .*`pip install 'tensorrt>=11'`"):
        library("tensorrt")


def test_the_command(copied: Bundle) -> None:
    arguments = ("--compute-capability", "8.9", "--max-batch", "16", "--no-parity")

    result = command(copied, "--runtime", "tensorrt_rtx", *arguments)

    assert (result.returncode, result.stderr) == (0, "")
    assert "tensorrt_rtx-fp16.plan" in result.stdout
    assert "for compute capability 8.9; convolutions and matrix products: 50 HALF" in result.stdout
    description = json.loads((copied.folder / SIDECAR).read_text())
    assert description["profile"] == {"minimum": 1, "optimum": 8, "maximum": 16}
    assert Bundle.open(copied.folder).has(PLAN)


@pytest.mark.parametrize(
    "options",
    [{"runtime": "tensorrt_rtx", "compute_capability": ("9.0",)}, {"runtime": "tensorrt"}],
    ids=["target", "edition"],
)
@pytest.mark.usefixtures("no_gpu", "without_cache")
def test_a_wrong_target_or_edition_is_refused_before_a_bundle_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "bundles"))
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(HalftoneError, match=r"can't build for compute capability 9\.0|tensorrt needs its library"):
        _main(TrtConfig(model="mobilenetv3_small", weights="random", **options))

    assert not (tmp_path / "bundles").exists()


def test_a_wrong_request_is_one_line(default: Bundle) -> None:
    result = command(default, "--runtime", "tensorrt_rtx", "--compute-capability", "9.0")

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert "can't build for compute capability 9.0: choose from 7.5, 8.0" in result.stderr
