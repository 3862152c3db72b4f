"""`python -m serving.profile`: the stages of a request, and wrong arguments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import PHOTOS, QUICK, ROOT, environment

COMMAND = [sys.executable, "-m", "serving.profile", "--requests", "5"]


def run(artifacts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment(artifacts, **QUICK) | {"COLUMNS": "200"}
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_the_stages_add_up_to_the_whole(artifacts: Path, tmp_path: Path) -> None:
    output = tmp_path / "profile.json"

    result = run(artifacts, "--image", str(PHOTOS / "coffee.jpg"), "--output", str(output))

    assert result.returncode == 0, result.stderr
    report = json.loads(output.read_text())
    assert report["picture"] == {"name": "coffee.jpg", "bytes": (PHOTOS / "coffee.jpg").stat().st_size}
    assert {"host", "versions", "date", "variant", "version"} <= set(report)
    assert set(report["over_socket"]) - set(report["in_process"]) == {"HTTP: socket, client", "HTTP: parse"}
    for stage in report["over_socket"]:
        assert stage in result.stdout
    for stage in ("decode", "fit", "infer", "encode", "total"):
        assert 0 < report["in_process"][stage]["median_ms"] <= report["in_process"]["total"]["median_ms"]
        assert report["over_socket"][stage]["median_ms"] <= report["over_socket"][stage]["p95_ms"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--requests", "0"], "--requests"),
        (["--image", "nowhere.jpg"], "nowhere.jpg"),
        (["--model", "nothing"], "nothing"),
        (["--image", str(PHOTOS / "LICENSES.md")], "not a picture"),
    ],
)
def test_wrong_arguments_are_refused(artifacts: Path, arguments: list[str], words: str) -> None:
    result = run(artifacts, *arguments)

    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert words in result.stderr
