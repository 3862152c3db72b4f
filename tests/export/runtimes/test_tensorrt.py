"""Test the checks before a plan is deserialised, and the execution of batches on a simulated GPU."""

import gc
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorrt_rtx

from export.cuda import slots
from export.cuda.device import GpuError
from export.parity.prove import provable_variants
from export.trt.library import library
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar
from export.variants import load, runtime_class, runtime_of
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import FileMissingError, HashMismatchError, StaleError
from models.common.errors import HalftoneError
from tests.export.simulated_gpu import VERSION, Cuda, tensorrt
from tests.samples import small_bundle

VARIANT, PLAN, SIDECAR = "tensorrt-fp16", "engines/tensorrt-fp16.plan", "engines/tensorrt-fp16.json"
REBUILD = r"`python -m export\.trt --model tiny --precision fp16 --runtime tensorrt`"
PROFILE = Profile(minimum=2, optimum=3, maximum=4)


@dataclass
class Machine:
    """A machine with a simulated GPU of compute capability 8.9."""

    cuda: Cuda
    deserialised: list[bytes]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Install the simulated TensorRT."""
    simulated = Machine(Cuda("8.9"), [])
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", simulated.cuda)
    module = tensorrt(simulated.cuda, simulated.deserialised, (PROFILE.minimum, PROFILE.maximum))
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    library.cache_clear()
    yield simulated
    library.cache_clear()


@pytest.fixture
def bundle(tmp_path: Any) -> Bundle:
    """Create a bundle with a plan and its description; the plan's content is a placeholder."""
    made = small_bundle(tmp_path / "tiny", labels=tuple(f"class {index}" for index in range(1000)))
    made.write("model.fp16.onnx", b"", made_by="`make graph`", made_from=[WEIGHTS])
    made.write(PLAN, b"plan", made_by="`build it`", made_from=[WEIGHTS, "model.fp16.onnx"])
    describe(made)
    return made


def describe(bundle: Bundle, **changes: Any) -> None:
    """Write the plan's description, with changes that make it wrong."""
    files = bundle.manifest.files
    sidecar = Sidecar(
        runtime="tensorrt",
        version=VERSION,
        precision="fp16",
        compute_capabilities=("8.9",),
        profile=PROFILE,
        onnx="model.fp16.onnx",
        onnx_sha256=files["model.fp16.onnx"].sha256,
        plan_sha256=files[PLAN].sha256,
        model_version=bundle.manifest.version,
        histogram={"CONVOLUTION": {"HALF": 1}},
        build_seconds=1.0,
        size=4,
    )
    bundle.write(SIDECAR, replace(sidecar, **changes).to_json(), made_by="`build it`", made_from=[PLAN])


def pictures(count: int) -> npt.NDArray[np.uint8]:
    """Return random images of increasing brightness."""
    ramp = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.random.default_rng(0).integers(0, 100, (count, 32, 32, 3), dtype=np.uint8) + 9 * ramp


def expected(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits of the simulated plan."""
    return pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float32)[:, None] + np.arange(1000, dtype=np.float32)


# The smallest batch is 2 and the largest 4: padded, whole, split into two, and into four with a single image left.
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 13])
def test_any_batch(machine: Machine, bundle: Bundle, count: int) -> None:
    runtime = load(bundle, VARIANT, threads=1)

    np.testing.assert_array_equal(runtime.run(pictures(count)), expected(pictures(count)))
    assert machine.deserialised == [b"plan"]
    assert (runtime.version(), runtime.executed_as) == (VERSION, "fp16 on Simulated GPU")


def test_the_caller_owns_the_logits(machine: Machine, bundle: Bundle) -> None:
    runtime = load(bundle, VARIANT, threads=1)
    first = runtime.run(pictures(3))

    runtime.run(pictures(3)[::-1])

    np.testing.assert_array_equal(first, expected(pictures(3)))


@pytest.mark.usefixtures("machine")
def test_many_threads_share_few_streams(bundle: Bundle) -> None:
    runtime = load(bundle, VARIANT, threads=2, streams=2)
    start = threading.Barrier(6)

    def work(offset: int) -> bool:
        start.wait()
        batches = [pictures(9)[(offset + step) % 7 :][: 1 + step % 4] for step in range(30)]
        return all(np.array_equal(runtime.run(batch), expected(batch)) for batch in batches)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_a_repeated_size_is_launched_as_a_graph(machine: Machine, bundle: Bundle) -> None:
    runtime = load(bundle, VARIANT, threads=1)

    for count in [3, 4, 3, 4, 3, 3, 4]:
        np.testing.assert_array_equal(runtime.run(pictures(count)), expected(pictures(count)))

    assert machine.cuda.launched == [1, 1, 2]
    del runtime
    gc.collect()
    assert machine.cuda.graphs == {}


def test_only_the_latest_sizes_stay_recorded(machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "RECORDED_SIZES", 2)
    runtime = load(bundle, VARIANT, threads=1)

    for count in [2, 2, 2, 3, 3, 3, 4, 4, 3, 2]:
        np.testing.assert_array_equal(runtime.run(pictures(count)), expected(pictures(count)))

    gc.collect()
    assert len(machine.cuda.graphs) == 1
    assert machine.cuda.launched == [1, 2, 2]


def test_a_size_that_can_not_be_recorded_runs_anyway(
    machine: Machine, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    machine.cuda.capturable = False
    runtime = load(bundle, VARIANT, threads=1)

    for count in [3, 3, 3, 4]:
        np.testing.assert_array_equal(runtime.run(pictures(count)), expected(pictures(count)))
    machine.cuda.capturable = True
    for count in [4, 4, 3]:
        np.testing.assert_array_equal(runtime.run(pictures(count)), expected(pictures(count)))

    assert machine.cuda.launched == [1]
    assert caplog.messages == ["batches of 3 are not launched as a CUDA graph: CUDA: cudaErrorStreamCaptureInvalidated"]


def test_sizes_are_recorded_on_every_stream_before_they_are_needed(machine: Machine, bundle: Bundle) -> None:
    runtime = load(bundle, VARIANT, threads=2, streams=2)

    runtime.keep([1, 3, 100])

    # The smallest batch of the plan is 2.
    assert len(machine.cuda.graphs) == 2 * 2
    np.testing.assert_array_equal(runtime.run(pictures(3)), expected(pictures(3)))
    assert len(machine.cuda.launched) == 1


def test_the_edition_for_rtx_records_its_own_graphs() -> None:
    config = types.SimpleNamespace(cuda_graph_strategy=None, dynamic_shapes_kernel_specialization_strategy=None)
    given: list[Any] = []
    simulated = types.SimpleNamespace(create_runtime_config=lambda: config, create_execution_context=given.append)
    runtime = runtime_class("tensorrt_rtx")

    runtime._context(runtime, library("tensorrt_rtx"), simulated)  # type: ignore[attr-defined]

    assert given == [config]
    assert config.cuda_graph_strategy == tensorrt_rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    eager = tensorrt_rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    assert config.dynamic_shapes_kernel_specialization_strategy == eager


def test_the_gpus_memory_is_freed(machine: Machine, bundle: Bundle) -> None:
    before = machine.cuda.free
    runtime = load(bundle, VARIANT, threads=2, streams=2)
    assert len(machine.cuda.streams) == 2
    assert machine.cuda.free == before - 2 * 2 * (4 * 32 * 32 * 3 + 4 * 1000 * 4)

    del runtime
    gc.collect()

    assert (machine.cuda.free, machine.cuda.streams, machine.cuda.blocks) == (before, {}, {})


def test_too_little_memory(machine: Machine, bundle: Bundle) -> None:
    machine.cuda.free = 100_000

    with pytest.raises(
        HalftoneError, match=r"GPU has no memory for .* with 3 concurrent .*MemoryAllocation.*--max-batch"
    ):
        load(bundle, VARIANT, threads=3, streams=3)

    gc.collect()
    assert machine.cuda.free == 100_000


def test_the_slot_of_a_failed_call_is_reused(machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = load(bundle, VARIANT, threads=1)
    with monkeypatch.context() as broken:
        broken.setattr(machine.cuda, "cudaMemcpyAsync", lambda *_: (Cuda(None).cudaGetDeviceCount()[0],))
        with pytest.raises(GpuError, match="cudaErrorInsufficientDriver"):
            runtime.run(pictures(1))

    np.testing.assert_array_equal(runtime.run(pictures(1)), expected(pictures(1)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "11.0.0.1"}, rf"built by tensorrt 11\.0\.0\.1 and .* and {VERSION} is installed: .*{REBUILD}"),
        (
            {"compute_capabilities": ("8.0", "9.0")},
            rf"of compute capability 8\.0, 9\.0, and this machine's GPU has 8\.9: .*{REBUILD}",
        ),
        ({"plan_sha256": "0" * 64}, rf"describes another plan than engines/tensorrt-fp16\.plan: .*{REBUILD}"),
        ({"runtime": "tensorrt_rtx"}, rf"describes another plan than .*{REBUILD}"),
    ],
)
def test_a_plan_for_another_machine_is_not_deserialised(
    machine: Machine, bundle: Bundle, changes: dict[str, Any], words: str
) -> None:
    describe(bundle, **changes)

    with pytest.raises(HalftoneError, match=words):
        load(bundle, VARIANT, threads=1)

    assert machine.deserialised == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": 2}', b'{"schema": 1, "profile": {}}'])
def test_an_invalid_description(machine: Machine, bundle: Bundle, content: bytes) -> None:
    bundle.write(SIDECAR, content, made_by="a test")

    with pytest.raises(HalftoneError, match=rf"tensorrt-fp16\.json can't be used: not the description .*{REBUILD}"):
        load(bundle, VARIANT, threads=1)
    assert machine.deserialised == []


@pytest.mark.parametrize("name", [PLAN, SIDECAR])
def test_a_changed_file_is_not_deserialised(machine: Machine, bundle: Bundle, name: str) -> None:
    with bundle.locate(name).open("ab") as file:
        file.write(b" ")

    with pytest.raises(HashMismatchError, match="`build it`"):
        load(bundle, VARIANT, threads=1)
    assert machine.deserialised == []


def test_a_plan_without_description(machine: Machine, bundle: Bundle) -> None:
    bundle.locate(SIDECAR).unlink()

    with pytest.raises(FileMissingError, match=r"tensorrt-fp16\.json is missing: make it again with `build it`"):
        load(bundle, VARIANT, threads=1)
    assert machine.deserialised == []


@pytest.mark.parametrize("source", [WEIGHTS, "model.fp16.onnx"])
def test_a_plan_of_older_files(machine: Machine, bundle: Bundle, source: str) -> None:
    bundle.write(source, b"newer", made_by="a test")

    with pytest.raises(StaleError, match=rf"{source}.*`build it`"):
        load(bundle, VARIANT, threads=1)
    assert machine.deserialised == []


@pytest.mark.usefixtures("machine")
def test_a_plan_that_the_library_rejects(bundle: Bundle) -> None:
    bundle.write(PLAN, b"", made_by="`build it`", made_from=[WEIGHTS, "model.fp16.onnx"])
    describe(bundle)

    with pytest.raises(HalftoneError, match=rf"can't load .* on Simulated GPU: the plan is empty; .*{REBUILD}"):
        load(bundle, VARIANT, threads=1)


@pytest.mark.usefixtures("machine")
def test_no_plan(bundle: Bundle) -> None:
    with pytest.raises(HalftoneError, match=r"has no engines/tensorrt-fp32\.plan: build it with `python .* fp32 "):
        load(bundle, "tensorrt-fp32", threads=1)


@pytest.mark.parametrize("variant", ["tensorrt-fp16", "tensorrt_rtx-fp16"])
def test_without_a_gpu(machine: Machine, bundle: Bundle, variant: str) -> None:
    machine.cuda.capability = None
    runtime, precision = runtime_of(variant)

    assert not runtime.supported(precision)
    with pytest.raises(HalftoneError, match=r"no CUDA GPU .*\(CUDA: cudaErrorInsufficientDriver\).*or choose"):
        load(bundle, variant, threads=1)


@pytest.mark.parametrize(("capability", "known"), [("8.0", True), ("9.0", False), ("12.0", True), ("13.0", True)])
def test_a_gpu_that_the_edition_for_rtx_does_not_support(machine: Machine, capability: str, known: bool) -> None:
    machine.cuda.capability = capability
    runtime = runtime_class("tensorrt_rtx")

    assert runtime.supported("fp16") is known
    if not known:
        with pytest.raises(
            HalftoneError, match=r"not run on Simulated GPU, .* is 9\.0 \(it supports .*8\.9.*tensorrt,"
        ):
            runtime.require()  # type: ignore[attr-defined]


def test_without_the_library(machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime_class("tensorrt").supported("fp16")
    assert not runtime_class("tensorrt").supported("int8")
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    assert not runtime_class("tensorrt").supported("fp16")
    with pytest.raises(HalftoneError, match=r"tensorrt needs its library, .*`pip install 'tensorrt>=11'`"):
        load(bundle, VARIANT, threads=1)


def test_without_the_bindings(machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)

    assert not runtime_class("tensorrt").supported("fp16")
    with pytest.raises(HalftoneError, match=r"Python bindings can't be imported .*`pip install 'cuda-bindings>=13'`"):
        load(bundle, VARIANT, threads=1)


def test_a_plan_is_proved_where_it_runs(machine: Machine, bundle: Bundle) -> None:
    assert VARIANT in provable_variants(bundle)

    machine.cuda.capability = None

    assert VARIANT not in provable_variants(bundle)
