"""`python -m export.preprocess_benchmark`: a table, the same figures as JSON, and a clear refusal."""

import json
import subprocess
from pathlib import Path

from tests.commands import run


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("export.preprocess_benchmark", *arguments)


def test_it_prints_and_writes_every_step(tmp_path: Path) -> None:
    done = benchmark("--seconds", "0.01", "--output", str(tmp_path / "figures.json"))

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["steps"]["load, Pillow alone"]["ratio"] == 1
    assert all(step in done.stdout and figures["ms"] > 0 for step, figures in report["steps"].items())
    assert report["versions"]["simplejpeg"] in done.stdout


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    refused = benchmark("--data", str(tmp_path))

    assert refused.returncode == 2
    assert "must hold .jpg files" in refused.stderr
