"""An independent tool accepts what is exported: Polygraphy's lint, which runs every part of a graph on ONNX Runtime."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.onnx.export import export_onnx
from models.bundle.bundle import Bundle
from tests.export.trained import trained_bundle


def lint(graph: Path, report: Path) -> dict[str, object]:
    """Polygraphy's report on a graph."""
    command = [str(Path(sys.executable).parent / "polygraphy"), "check", "lint", str(graph), "-o", str(report)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return dict(json.loads(report.read_text()))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_cnn(default: Bundle, precision: str, tmp_path: Path) -> None:
    report = lint(default.locate(f"model.{precision}.onnx"), tmp_path / "report.json")

    assert report["lint_entries"] == []


def test_a_transformer(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path / "mine", "vit_ti16", 64)

    report = lint(bundle.locate(export_onnx(bundle, "fp16")), tmp_path / "report.json")

    assert report["lint_entries"] == []
