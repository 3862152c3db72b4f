"""The commands of the README in their order: pictures to a bundle, its proof, and a right answer over HTTP."""

import json
import os
from pathlib import Path

import pytest

from tests.commands import run
from tests.servers import QUICK, ROOT

SAMPLE = ROOT / "training" / "sample"


def command(artifacts: Path, *arguments: str, **environment: str) -> str:
    result = run(*arguments, env=os.environ | {"HALFTONE_ARTIFACTS": str(artifacts)} | environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifacts = tmp_path_factory.mktemp("end_to_end")
    command(
        artifacts, "training", "--data", str(SAMPLE), "--model", "efficientnet_lite0", "--recipe", "quick",
        "--size", "64", "--crop-fraction", "1", "--output", str(artifacts / "clothes"),
    )  # fmt: skip
    return artifacts


def test_sample_pictures_become_a_bundle_with_a_report(trained: Path) -> None:
    manifest = json.loads((trained / "clothes" / "manifest.json").read_text())
    metrics = manifest["training"]["metrics"]

    assert metrics["val_top1"] > 0.5
    assert manifest["labels"][0] == "Ankle boot"
    assert "report/index.html" in manifest["files"]
    assert "<h1>clothes</h1>" in (trained / "clothes" / "report" / "index.html").read_text()


def test_the_bundle_is_proved_on_its_held_out_pictures_and_serves(trained: Path) -> None:
    printed = command(trained, "export", "--model", "clothes", "--no-int8", "--data", str(SAMPLE))
    picture = SAMPLE / "val" / "Bag" / sorted(path.name for path in (SAMPLE / "val" / "Bag").iterdir())[0]
    answer = command(trained, "loadtest.ask", "--image", str(picture), HALFTONE_MODEL="clothes", **QUICK)

    assert "onnxruntime-fp32" in printed
    record = json.loads((trained / "clothes" / "parity" / "onnxruntime-fp32.json").read_text())
    assert record["verdict"] == "PASSED"
    assert record["data"]["labelled"]
    assert answer.splitlines()[1].split(maxsplit=1)[1] == "Bag"
