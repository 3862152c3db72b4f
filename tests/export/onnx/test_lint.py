"""Polygraphy's lint accepts exported graphs: it runs every part of a graph on ONNX Runtime."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle.bundle import Bundle
from tests.export.conftest import Exported


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


def test_a_transformer(exported: Exported, tmp_path: Path) -> None:
    report = lint(exported("vit_ti16", 112).locate("model.fp16.onnx"), tmp_path / "report.json")

    assert report["lint_entries"] == []
