"""Test ONNX Runtime on a simulated GPU: the real library executes the real graph on simulated memory and streams."""

import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from rich.progress import Progress

import export.parity.prove
from export.cuda.device import GpuError, GpuLostError
from export.parity.gate import Gate
from export.parity.prove import prove
from export.runtime import Runtime
from export.runtimes import onnxruntime_cuda
from export.variants import load
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from tests.export.simulated_gpu import Cuda

VARIANT = "onnxruntime_cuda-fp32"


class Session:
    """An `InferenceSession` on the simulated GPU, which executes a stream's work when the stream is synchronised."""

    recordable: ClassVar[bool] = True
    capturable: ClassVar[bool] = True
    created: ClassVar[list["Session"]] = []
    while_recorded: ClassVar[Callable[[], object]] = staticmethod(lambda: None)

    def __init__(self, cuda: Cuda, graph: bytes, options: Any, *, providers: list[tuple[str, dict[str, str]]]) -> None:
        self.cuda = cuda
        ((self.name, self.settings),) = providers
        if "enable_cuda_graph" in self.settings and not self.recordable:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("This session cannot use the graph capture feature")
        self._handles()
        self.created.append(self)
        self.real = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __del__(self) -> None:
        # Like the library's destructor, which can't report an error.
        self.cuda.cudaDeviceSynchronize()

    def _handles(self) -> None:
        status = self.cuda.cudaDeviceSynchronize()[0]
        if status:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(f"CUDA failure {status.value}: {status.name}")

    def get_providers(self) -> list[str]:
        return [self.name]

    def disable_fallback(self) -> None:
        pass

    def io_binding(self) -> Any:
        binding = self.real.io_binding()
        for bind in ("bind_input", "bind_output"):
            setattr(binding, bind, partial(self._bound, getattr(binding, bind)))
        return binding

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        assert options.get_run_config_entry("gpu_graph_id") == "-1"
        stream = int(self.settings["user_compute_stream"])
        if stream in self.cuda.captures and not self.capturable:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("operation not permitted when stream is capturing")
        if stream in self.cuda.captures:
            self.while_recorded()
        self.cuda.streams[stream].append(partial(self.real.run_with_iobinding, binding))

    def _bound(self, bind: Any, name: str, device: str, *rest: Any) -> None:
        assert device == "cuda"
        bind(name, "cpu", *rest)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """Simulate a machine with a GPU and an ONNX Runtime that supports CUDA."""
    simulated = Cuda("8.9")
    monkeypatch.setattr(Session, "created", [])
    original = onnxruntime.InferenceSession
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", simulated)
    monkeypatch.setattr(onnxruntime_cuda, "_built_for_cuda", lambda: True)
    monkeypatch.setattr(onnxruntime_cuda, "_loadable", lambda: True)

    def session(graph: bytes, options: Any, *, providers: list[Any]) -> Any:
        if providers == ["CPUExecutionProvider"]:
            return original(graph, options, providers=providers)
        return Session(simulated, graph, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return simulated


def pictures(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


@pytest.fixture
def processor(default: Bundle) -> Runtime:
    """Load the same graph on the CPU."""
    return load(default, "onnxruntime-fp32", threads=1)


def test_any_batch(cuda: Cuda, default: Bundle, processor: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_cuda.OnnxRuntimeCuda, "sizes", (1, 2, 4))
    runtime = load(default, VARIANT, threads=1)

    runtime.keep([1, 2, 100])
    for count in (1, 2, 4, 5, 2):
        np.testing.assert_allclose(runtime.run(pictures(count)), processor.run(pictures(count)), atol=1e-4)
    assert runtime.executed_as == "fp32 on Simulated GPU"


@pytest.mark.parametrize("recordable", [True, False])
def test_work_is_recorded_if_the_library_allows_it(
    cuda: Cuda, default: Bundle, processor: Runtime, monkeypatch: pytest.MonkeyPatch, recordable: bool
) -> None:
    monkeypatch.setattr(Session, "recordable", recordable)
    runtime = load(default, VARIANT, threads=1)

    for _ in range(4):
        np.testing.assert_allclose(runtime.run(pictures(2)), processor.run(pictures(2)), atol=1e-4)

    assert len(cuda.launched) == (2 if recordable else 0)


def test_work_whose_recording_fails_runs_anyway(
    cuda: Cuda,
    default: Bundle,
    processor: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Session, "capturable", False)
    runtime = load(default, VARIANT, threads=1)

    for _ in range(4):
        np.testing.assert_allclose(runtime.run(pictures(2)), processor.run(pictures(2)), atol=1e-4)

    assert cuda.launched == []
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("batches of 2 are not launched as a CUDA graph: ")


def test_a_size_without_memory_does_not_cost_a_slot(
    cuda: Cuda, default: Bundle, processor: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load(default, VARIANT, threads=2, streams=2)
    with monkeypatch.context() as full:
        full.setattr(onnxruntime, "InferenceSession", lambda *_, **__: 1 / 0)
        with pytest.raises(GpuError, match="division by zero"):
            runtime.keep([4])

    runtime.keep([4])
    np.testing.assert_allclose(runtime.run(pictures(3)), processor.run(pictures(3)), atol=1e-4)


def test_other_threads_do_not_invalidate_a_recording(
    cuda: Cuda, default: Bundle, processor: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Creating and freeing sessions synchronises the whole GPU, which would invalidate any thread's recording."""
    runtime, doomed = (load(default, VARIANT, threads=1) for _ in range(2))
    others: list[threading.Thread] = []
    in_time: list[bool] = []

    def disturb() -> None:
        nonlocal doomed
        load(default, VARIANT, threads=1).run(pictures(4))
        doomed = runtime

    def meanwhile() -> None:
        if not others:
            others.append(threading.Thread(target=disturb))
            others[0].start()
            others[0].join(0.3)
            in_time.append(others[0].is_alive())

    monkeypatch.setattr(Session, "while_recorded", staticmethod(meanwhile))
    # Otherwise this list would keep the sessions alive.
    Session.created.clear()
    for _ in range(3):
        np.testing.assert_allclose(runtime.run(pictures(2)), processor.run(pictures(2)), atol=1e-4)
    others[0].join()

    assert in_time == [True]
    assert (cuda.capturable, len(cuda.launched), caplog.messages) == (True, 1, [])


def test_a_lost_gpu_is_distinguished_from_a_failed_call(
    cuda: Cuda, default: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load(default, VARIANT, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "run_with_iobinding", lambda *_: 1 / 0)
        with pytest.raises(GpuError, match="division by zero") as failed:
            runtime.run(pictures(1))
    cuda.lost = True

    with pytest.raises(GpuLostError, match="cudaErrorIllegalInstruction"):
        runtime.run(pictures(1))
    # Whatever error the library raises: a process that lost the GPU must not fall back to another variant.
    monkeypatch.setattr(Session, "_handles", lambda _: 1 / 0)
    with pytest.raises(GpuLostError, match="cudaErrorIllegalInstruction"):
        load(default, VARIANT, threads=1)
    assert not isinstance(failed.value, GpuLostError)


@pytest.mark.parametrize("missing", ["", "libcudnn", "providers_cuda"])
def test_a_missing_library_is_detected(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The provider is not linked with cuDNN and would fail only at the first convolution."""

    def opened(name: str, mode: int = 0) -> None:
        if missing and missing in name:
            raise OSError

    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Cuda("9.0"))
    monkeypatch.setattr(onnxruntime_cuda, "_built_for_cuda", lambda: True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime_cuda.ctypes, "CDLL", opened)
    onnxruntime_cuda._loadable.cache_clear()
    try:
        assert onnxruntime_cuda.OnnxRuntimeCuda.supported("fp16") is not bool(missing)
    finally:
        onnxruntime_cuda._loadable.cache_clear()


def test_a_proof_runs_every_batch_size_that_will_be_served(
    cuda: Cuda, copied: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A third of PyTorch's time.
    monkeypatch.setattr(export.parity.prove, "REFERENCE", "onnxruntime-fp32")

    (record,) = prove(copied, {VARIANT: Gate.for_precision("fp32")}, None, Progress(disable=True))

    assert record.verdict == "PASSED"
    assert sorted({session.real.get_inputs()[0].shape[0] for session in Session.created}) == [1, 2, 4, 8, 16, 32]
    # One recording per size; the simulated graphs are numbered in order.
    assert set(cuda.launched) == {1, 2, 3, 4, 5, 6}


def test_every_size_has_its_own_session(cuda: Cuda, default: Bundle, processor: Runtime) -> None:
    runtime = load(default, VARIANT, threads=1)

    # Padded to 1, 4, 4, 8, 4 and 1; a session accepts batches of one size only.
    for count in (1, 3, 4, 8, 3, 1):
        np.testing.assert_allclose(runtime.run(pictures(count)), processor.run(pictures(count)), atol=1e-4)

    assert [session.real.get_inputs()[0].shape[0] for session in Session.created] == [1, 4, 8]


def test_few_slots_for_many_threads(cuda: Cuda, default: Bundle, processor: Runtime) -> None:
    runtime = load(default, VARIANT, threads=4, streams=4)

    assert (runtime.streams, len(cuda.streams)) == (onnxruntime_cuda.MAX_SLOTS, onnxruntime_cuda.MAX_SLOTS)
    expected = [processor.run(pictures(1 + index % 3)) for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda index: runtime.run(pictures(1 + index % 3)), range(12)))
    for answer, right in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, right, atol=1e-4)


def test_the_gpus_memory_is_freed(cuda: Cuda, default: Bundle) -> None:
    before = cuda.free
    runtime = load(default, VARIANT, threads=2, streams=2)
    # Buffers for the largest batch of images and of logits, on the host and on the GPU.
    largest = max(runtime.sizes)
    assert cuda.free == before - 2 * 2 * largest * (96 * 96 * 3 + 1000 * 4)

    del runtime
    gc.collect()

    assert (cuda.free, cuda.streams, cuda.blocks) == (before, {}, {})


def test_large_images_are_run_in_smaller_batches(cuda: Cuda, default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "MAX_STAGING", 3 * 96 * 96 * 3)
    before = cuda.free

    runtime = load(default, VARIANT, threads=1)

    assert cuda.free == before - 2 * 3 * (96 * 96 * 3 + 1000 * 4)
    assert runtime.run(pictures(4)).shape == (4, 1000)


def test_too_little_memory(cuda: Cuda, default: Bundle) -> None:
    cuda.free = 100_000

    with pytest.raises(HalftoneError, match=r"no memory for model\.fp32\.onnx: .*MemoryAllocation; stop other"):
        load(default, VARIANT, threads=1)
    gc.collect()
    assert cuda.free == 100_000


def test_a_library_that_falls_back_to_the_cpu_is_an_error(
    cuda: Cuda, default: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "get_providers", lambda self: ["CPUExecutionProvider"])

    with pytest.raises(HalftoneError, match=r"runs model\.fp32\.onnx on the CPU: `pip install 'onnxruntime-gpu"):
        load(default, VARIANT, threads=1)
