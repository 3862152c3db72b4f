"""Starts that fail with correct settings: one line, an exit code, and no endless restarts."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from export.cuda.device import GpuError
from models.common.errors import HalftoneError
from serving.process.startup_errors import explain
from serving.settings import Settings
from tests.servers import PHOTOS, QUICK, ROOT, environment, free_port, serve, wait_until
from tests.serving.process.starts import ended, kill_worker, starting, workers_of


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_a_lame_duck_lives_for_some_seconds(seconds: str) -> None:
    with pytest.raises(HalftoneError, match="HALFTONE_LAME_DUCK must be 0 or a positive number"):
        Settings.from_environment({"HALFTONE_LAME_DUCK": seconds})


def test_the_port_is_taken(artifacts: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = ended(artifacts, port)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: can't listen on 127.0.0.1:{port}: the port is taken: stop what listens there, "
        "or choose another one with --port\n"
    )


def test_a_port_that_does_not_exist_is_refused(artifacts: Path) -> None:
    result = ended(artifacts, 99_999)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: there is no port 99999: name one from 1 to 65535 with --port\n"


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [("0.0.0.0", "", True), ("0.0.0.0", "secret-of-sixteen-letters", False), ("127.0.0.1", "", False)],
)
def test_a_service_without_a_key_says_that_the_network_may_ask(
    artifacts: Path, tmp_path: Path, host: str, keys: str, warned: bool
) -> None:
    command = [Path(sys.executable).parent / "bentoml", "serve", "--host", host, "--port", str(free_port())]
    log, settings = tmp_path / "log", environment(artifacts, HALFTONE_API_KEYS=keys, **QUICK)
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, env=settings, stdout=file, stderr=file) as process:
        try:
            wait_until(lambda: "Starting production" in log.read_text(), "the start")
        finally:
            process.terminate()

    assert ("is open to all its networks, and there is no API key" in log.read_text()) == warned


def test_a_worker_killed_while_it_loads(artifacts: Path) -> None:
    with starting(artifacts) as (process, (worker,)):
        kill_worker(worker)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "not enough memory" in stderr
    assert stderr.count("\n") == 1


def test_sigterm_while_it_loads(artifacts: Path) -> None:
    with starting(artifacts) as (process, _):
        process.terminate()
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 0, stderr


def test_a_worker_that_stops_is_replaced(artifacts: Path, tmp_path: Path) -> None:
    with serve(artifacts, tmp_path / "log", **QUICK) as server:
        (first,) = workers_of(server.process.pid)
        first.terminate()
        first.wait(timeout=60)
        assert server.get("/readyz").status_code == 200


LOST_ONCE = """
import importlib.machinery, os, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "export.runtimes.onnxruntime":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            infer = module.OnnxRuntime._infer
            def lost(self, pixels):
                if os.path.exists(os.environ["LOST"]):
                    from export.cuda.device import GpuLostError
                    os.unlink(os.environ["LOST"])
                    raise GpuLostError("CUDA: cudaErrorIllegalInstruction")
                return infer(self, pixels)
            module.OnnxRuntime._infer = lost
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder)
"""
"""A `sitecustomize` with which the model fails once if the file LOST exists, as on a GPU that is lost."""


def test_a_worker_that_lost_its_gpu_is_replaced(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOST_ONCE)
    lost, picture = tmp_path / "lost", (PHOTOS / "cat.jpg").read_bytes()
    with serve(artifacts, tmp_path / "log", PYTHONPATH=str(tmp_path), LOST=str(lost), **QUICK) as server:
        (first,) = workers_of(server.process.pid)
        lost.touch()
        with contextlib.suppress(httpx.TransportError):
            server.post("/classify", content=picture)
        first.wait(timeout=30)

        assert server.post("/classify", content=picture).status_code in (200, 503)
        wait_until(lambda: server.post("/classify", content=picture).status_code == 200, "another one answered")
        assert (
            "efficientnet_lite0 can't run any more in this process, which ends: CUDA: cudaErrorIllegalInstruction"
            in (server.log.read_text())
        )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (
            GpuError("CUDA: cudaErrorUnknown"),
            "CUDA: cudaErrorUnknown; stop what else uses the GPU, or choose a variant of",
        ),
        (RuntimeError("std::bad_alloc"), "not enough memory"),
        (HalftoneError("do this"), "do this"),
        (ValueError("odd\nindeed"), "ValueError: odd (the traceback is in the log)"),
    ],
)
def test_why_a_model_can_not_be_loaded(error: Exception, words: str) -> None:
    line = explain(error)

    assert words in line
    assert "\n" not in line
