"""Nothing that a user starts tells anyone of it: no name is looked up, nothing is connected to, HOME stays as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit import audited, traces
from tests.servers import QUICK, ROOT, serve

SAMPLE = ROOT / "training" / "sample"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return audited(tmp_path)


def test_the_runtimes_and_the_quantiser_report_nothing(environment: dict[str, str]) -> None:
    script = "import export.runtimes.openvino, export.onnx.fp16.ranges\nfrom export.onnx.int8 import _nncf\n_nncf()\n"

    subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, check=True, capture_output=True)

    assert traces(environment) == []


def test_a_training_reports_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training",
        "--data",
        str(SAMPLE),
        "--model",
        "mobilenetv3_small",
        "--weights",
        "random",
    ]
    command += ["--size", "32", "--epochs", "1", "--limit", "40", "--output", str(tmp_path / "run")]

    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)

    assert traces(environment) == []


def test_a_service_reports_nothing(environment: dict[str, str], artifacts: Path, tmp_path: Path) -> None:
    names = ("HOME", "PYTHONPATH", "AUDIT_LOG")
    extra = {name: environment[name] for name in names} | {"BENTOML_HOME": str(tmp_path / "bentoml")}

    with serve(artifacts, tmp_path / "log", **QUICK | {"HALFTONE_VARIANT": "openvino-fp32"}, **extra) as server:
        assert server.get("/readyz").status_code == 200

    assert traces(environment) == []
