"""The benchmark's command: a table, the same as JSON, and a clear refusal."""

import json
import subprocess
import sys
from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "export.preprocess_benchmark", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_prints_and_writes_every_step(tmp_path: Path) -> None:
    done = run("--seconds", "0.01", "--output", str(tmp_path / "figures.json"))

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report["steps"]["load, Pillow alone"]["ratio"] == 1
    assert all(step in done.stdout and figures["ms"] > 0 for step, figures in report["steps"].items())
    assert report["versions"]["simplejpeg"] in done.stdout


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    refused = run("--data", str(tmp_path))

    assert refused.returncode == 2
    assert "must hold .jpg files" in refused.stderr
