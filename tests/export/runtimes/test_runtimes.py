"""Test that every runtime keeps the contract of `Runtime`, and that its errors are one line with the fix."""

import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import openvino
import pytest

from export.parity.images import sample_crops
from export.runtime import Runtime
from export.runtimes.openvino import OpenVino
from export.variants import load, runtime_class, runtime_names, runtime_of
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import BundleError, HashMismatchError, StaleError
from models.common.errors import HalftoneError
from models.common.files import sha256_file
from tests.export.conftest import NAME

VARIANTS = ["onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32", "torch-fp32"]
GRAPH = "model.fp32.onnx"


@pytest.fixture(scope="module")
def pixels(default: Bundle) -> npt.NDArray[np.uint8]:
    """Crop each sample photograph once."""
    return np.stack([picture for picture, _ in sample_crops(default.manifest.input, per_photo=1)])


@pytest.fixture(scope="module")
def published(artifacts: Path) -> tuple[Bundle, npt.NDArray[np.uint8]]:
    """The default bundle at its published size, for which the tolerances are, and such crops."""
    bundle = Bundle.open(artifacts / NAME)
    return bundle, np.stack([picture for picture, _ in sample_crops(bundle.manifest.input, per_photo=1)])


class Stub(Runtime):
    """A runtime whose output is set by the test."""

    name: ClassVar[str] = "stub"
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    output: ClassVar[Any] = None

    @classmethod
    def source(cls, precision: str) -> str:
        return WEIGHTS

    @classmethod
    def version(cls) -> str:
        return "1.0"

    @property
    def executed_as(self) -> str:
        return "fp32 on paper"

    def _open(self, source: bytes, bundle: Bundle, threads: int, streams: int) -> None:
        self.source_bytes = source

    def _infer(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating]:
        assert pixels.flags.c_contiguous
        return np.asarray(type(self).output(pixels))


def rewrite(bundle: Bundle, data: bytes) -> None:
    """Replace the bundle's graph and its hash."""
    old = bundle.manifest.files[GRAPH]
    bundle.write(GRAPH, data, made_by=old.made_by, made_from=list(old.made_from))


def test_the_runtimes_are_discovered_by_their_files() -> None:
    assert {"onnxruntime", "openvino", "torch"} <= set(runtime_names())
    for name in ("onnxruntime", "openvino", "torch"):
        assert runtime_class(name).name == name
        assert runtime_class(name).version()[0].isdigit()


@pytest.mark.parametrize("variant", VARIANTS)
def test_four_threads_get_the_logits_of_a_single_thread(
    default: Bundle, pixels: npt.NDArray[np.uint8], variant: str
) -> None:
    runtime = load(default, variant, threads=2, streams=2)
    expected = [runtime.run(each[None]) for each in pixels]
    start = threading.Barrier(4)

    def work(offset: int) -> list[bool]:
        start.wait()
        order = [(offset + step) % len(pixels) for step in range(len(pixels))]
        return [np.array_equal(runtime.run(pixels[index][None]), expected[index]) for index in order]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))

    assert np.mean(results) == 1
    assert all(expected[0].tobytes() != other.tobytes() for other in expected[1:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_caller_owns_the_logits(default: Bundle, pixels: npt.NDArray[np.uint8], variant: str) -> None:
    runtime = load(default, variant, threads=1)
    first = runtime.run(pixels[:1])
    kept = first.copy()

    runtime.run(pixels[1:2])

    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pixels_may_have_any_memory_layout(default: Bundle, pixels: npt.NDArray[np.uint8], variant: str) -> None:
    runtime = load(default, variant, threads=2)
    mirrored = pixels[:2, :, ::-1]
    read_only = np.ascontiguousarray(mirrored)
    read_only.flags.writeable = False

    np.testing.assert_array_equal(runtime.run(mirrored), runtime.run(read_only))


def test_each_runtime_agrees_with_the_reference(published: tuple[Bundle, npt.NDArray[np.uint8]]) -> None:
    bundle, pixels = published
    expected = load(bundle, "torch-fp32", threads=2).run(pixels)

    for variant, tolerance in (("onnxruntime-fp32", 1e-4), ("openvino-fp32", 1e-3), ("onnxruntime-fp16", 0.1)):
        np.testing.assert_allclose(load(bundle, variant, threads=2).run(pixels), expected, atol=tolerance)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("onnxruntime-fp32", "fp32 on CPU"),
        ("onnxruntime-fp16", "fp16 on CPU"),
        ("openvino-fp32", "fp32 on CPU"),
        ("torch-fp32", "fp32 on CPU"),
    ],
)
def test_a_runtime_reports_what_it_executes(default: Bundle, variant: str, words: str) -> None:
    assert load(default, variant, threads=1).executed_as == words


def test_bfloat16_runs_if_the_processor_supports_it_and_is_an_error_otherwise(
    published: tuple[Bundle, npt.NDArray[np.uint8]],
) -> None:
    bundle, pixels = published
    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert runtime_class("openvino").supported("bf16") is has_bf16

    if not has_bf16:
        with pytest.raises(HalftoneError, match=r"not support bf16 arithmetic.*use the variant openvino-fp32"):
            load(bundle, "openvino-bf16", threads=2)
        return
    runtime = load(bundle, "openvino-bf16", threads=2)
    expected = load(bundle, "torch-fp32", threads=2).run(pixels)
    assert runtime.executed_as == "bf16 on CPU"
    assert 0 < np.abs(runtime.run(pixels) - expected).max() < 1


def test_a_precision_that_was_not_executed_is_an_error(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenVINO silently runs FP32 if the processor does not support the requested precision.
    monkeypatch.setattr(OpenVino, "executed_as", "fp32 on CPU")

    with pytest.raises(HalftoneError, match=r"bf16 arithmetic \(OpenVINO would run fp32 on CPU\).*openvino-fp32"):
        load(default, "openvino-bf16", threads=1)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("abacus-fp32", "use RUNTIME-PRECISION with one of the runtimes onnxruntime, onnxruntime_cuda, openvino"),
        ("base-fp32", "not a variant"),
        ("registry-fp32", "not a variant"),
        ("openvino", "not a variant"),
        ("", "not a variant"),
        ("../x-fp32", "not a variant"),
        ("openvino-fp16", "choose from openvino-bf16, openvino-fp32"),
        ("torch-fp16", "choose from torch-fp32"),
        ("onnxruntime-", "choose from onnxruntime-fp32, onnxruntime-fp16"),
    ],
)
def test_an_unknown_variant_lists_the_known_variants(variant: str, words: str) -> None:
    with pytest.raises(HalftoneError, match=words):
        runtime_of(variant)


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "export.runtimes.openvino", raising=False)
    for module in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(HalftoneError, match=r"openvino needs the package openvino.*`pip install openvino`.*another"):
        runtime_of("openvino-fp32")


@pytest.mark.parametrize(("threads", "streams"), [(0, 1), (1, 0), (-1, 1)])
def test_threads_and_streams_are_positive(default: Bundle, threads: int, streams: int) -> None:
    with pytest.raises(HalftoneError, match="threads and streams must be at least 1"):
        load(default, "onnxruntime-fp32", threads=threads, streams=streams)


def test_more_streams_than_threads(default: Bundle, pixels: npt.NDArray[np.uint8]) -> None:
    assert load(default, "onnxruntime-fp32", threads=1, streams=4).run(pixels[:1]).shape == (1, 1000)


@pytest.mark.parametrize(("gain", "kept"), [(0.0, True), (math.inf, False)])
def test_openvino_runs_an_image_alone_on_all_threads_if_that_is_faster(
    default: Bundle, pixels: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, gain: float, kept: bool
) -> None:
    monkeypatch.setattr("export.runtimes.openvino._ALONE_GAIN", gain)
    runtime = load(default, "openvino-fp32", threads=2, streams=2)
    expected = runtime.run(pixels[:3])

    assert runtime.prepare_alone() is kept
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(runtime.run, pixels[:1], alone=True) for _ in range(4)]
        for run in runs:
            np.testing.assert_allclose(run.result(), expected[:1], atol=1e-3)
    np.testing.assert_allclose(runtime.run(pixels[:3], alone=True), expected, atol=1e-3)


@pytest.mark.parametrize(("limit", "inline"), [(2**40, True), (0, False)])
def test_openvino_compiles_small_models_for_each_stream(
    default: Bundle, pixels: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, limit: int, inline: bool
) -> None:
    monkeypatch.setattr("export.runtimes.openvino.MAX_COPIED", limit)
    expected = load(default, "onnxruntime-fp32", threads=2).run(pixels[:3])
    runtime = load(default, "openvino-fp32", threads=2, streams=2)

    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(runtime.run, pixels[:3]) for _ in range(6)]
        runtime.keep([4])
        for run in runs:
            np.testing.assert_allclose(run.result(), expected, atol=1e-3)

    assert runtime.inline is inline
    assert load(default, "openvino-fp32", threads=2).inline is False


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "openvino-fp32"])
def test_an_invalid_graph_names_the_repair(copied: Bundle, variant: str) -> None:
    # Valid protobuf, but not a model.
    rewrite(copied, b"\x08\x0a")

    with pytest.raises(HalftoneError, match=r"can't (load|compile) model\.fp32\.onnx.*python -m export\.o") as caught:
        load(copied, variant, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "openvino-fp32"])
def test_a_graph_is_hashed_before_it_is_deserialised(copied: Bundle, variant: str) -> None:
    with copied.locate(GRAPH).open("ab") as file:
        file.write(b"\0")

    with pytest.raises(HashMismatchError):
        load(copied, variant, threads=1)


def test_a_graph_of_older_weights_is_not_run(copied: Bundle) -> None:
    copied.write(WEIGHTS, b"new weights", made_by="a test")

    with pytest.raises(StaleError, match=r"python -m export\.onnx --model efficientnet_lite0 --precision fp32`"):
        load(copied, "onnxruntime-fp32", threads=1)


@pytest.fixture
def split(copied: Bundle) -> Bundle:
    """Copy the default bundle and move the graph's weights to a separate file, which the manifest lists."""
    graph = onnx.load_from_string(copied.read(GRAPH))
    onnx.save_model(
        graph,
        str(copied.folder / "split.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=1024,
    )
    copied.write("weights.bin", (copied.folder / "weights.bin").read_bytes(), made_by="`split it`")
    rewrite(copied, (copied.folder / "split.onnx").read_bytes())
    return copied


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "openvino-fp32"])
def test_external_weights_are_never_read_from_the_current_folder(
    split: Bundle, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (split.folder.parent / "here").mkdir()
    monkeypatch.chdir(split.folder.parent / "here")
    Path("weights.bin").write_bytes(bytes(split.manifest.files["weights.bin"].size))

    with pytest.raises(HalftoneError, match=r"stores tensors in weights\.bin.*export it again with .*python -m export"):
        load(split, variant, threads=1)


def test_external_weights_are_hashed(split: Bundle) -> None:
    assert split.read(GRAPH)
    path = split.locate("weights.bin")
    assert sha256_file(path) == split.manifest.files["weights.bin"].sha256
    path.write_bytes(bytes(split.manifest.files["weights.bin"].size))

    with pytest.raises(HashMismatchError, match=r"weights\.bin.*`split it`"):
        split.read(GRAPH)
    path.unlink()
    with pytest.raises(BundleError, match=r"weights\.bin is missing"):
        split.read(GRAPH)


def test_a_runtime_receives_the_checked_bytes(default: Bundle) -> None:
    assert Stub.load(default, precision="fp32", threads=1).source_bytes == default.read(WEIGHTS)
    with pytest.raises(HalftoneError, match="no variant stub-fp64: choose from stub-fp32"):
        Stub.load(default, precision="fp64", threads=1)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 96, 96, 3), np.float32),
        np.zeros((1, 96, 96, 3), np.int8),
        np.zeros((96, 96, 3), np.uint8),
        np.zeros((0, 96, 96, 3), np.uint8),
        np.zeros((1, 3, 96, 96), np.uint8),
        np.zeros((1, 96, 95, 3), np.uint8),
        np.zeros((1, 96, 96, 4), np.uint8),
    ],
)
def test_other_arrays_than_pixels_are_an_error(default: Bundle, wrong: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"pixels must be uint8 of shape \(N, 96, 96, 3\) with N >= 1, not"):
        Stub.load(default, precision="fp32", threads=1).run(wrong)


@pytest.mark.parametrize("shape", [(2, 999), (1, 1000), (1000,), (2, 1000, 1)])
def test_an_output_of_another_shape_is_an_error(
    default: Bundle, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(Stub, "output", lambda pixels: np.zeros(shape))

    with pytest.raises(ValueError, match=r"the model's output has shape .*, not \(2, 1000\)"):
        Stub.load(default, precision="fp32", threads=1).run(np.zeros((2, 96, 96, 3), np.uint8))


def test_outputs_become_float32(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "output", lambda pixels: np.ones((len(pixels), 1000), np.float16))

    logits = Stub.load(default, precision="fp32", threads=1).run(np.zeros((2, 96, 96, 3), np.uint8)[:, ::-1])

    assert (logits.dtype, logits.shape, logits.min()) == (np.float32, (2, 1000), 1)


MODELS_THAT_END_IN_ANY_ORDER = """
import faulthandler, os, signal, sys
from pathlib import Path
from export.variants import load
from models.bundle.bundle import Bundle

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
bundle = Bundle.open(Path(sys.argv[1]))
first = load(bundle, "openvino-fp32", threads=1)
second = load(bundle, "openvino-fp32", threads=1)
del first
del second
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_models_of_openvino_ended(default: Bundle) -> None:
    command = [sys.executable, "-c", MODELS_THAT_END_IN_ANY_ORDER, str(default.folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (0, "handled\n"), result.stderr
