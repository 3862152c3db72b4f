import os
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT


def ask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.ask", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_a_picture_is_answered_by_the_bundle(artifacts: Path) -> None:
    result = ask("--image", "export/photos/coffee.jpg", HALFTONE_ARTIFACTS=str(artifacts))

    assert result.returncode == 0, result.stderr
    assert "efficientnet_lite0" in result.stdout
    assert "espresso" in result.stdout or "cup" in result.stdout


def test_a_missing_picture_is_a_wrong_request() -> None:
    result = ask("--image", "no.jpg")

    assert result.returncode == 2
    assert result.stderr == "error: --image no.jpg: no such file\n"


def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    result = ask("--image", "export/photos/coffee.jpg", HALFTONE_ARTIFACTS=str(tmp_path))

    assert result.returncode == 1
    assert "python -m export --model efficientnet_lite0" in result.stderr


def test_a_picture_that_is_none_is_refused_in_the_servers_words(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no picture")

    result = ask("--image", str(tmp_path / "note.jpg"), HALFTONE_ARTIFACTS=str(artifacts))

    assert result.returncode == 2
    assert result.stderr.endswith("these 10 bytes are not a picture: send a JPEG, PNG or WebP file\n")
