"""`python -m loadtest.ask`: predictions of a bundle, and wrong requests."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import run
from tests.servers import QUICK, ROOT, alive, children_with, family_of, wait_until


def ask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("loadtest.ask", *arguments, env=os.environ | QUICK | environment)


def test_the_bundle_classifies_a_picture(artifacts: Path) -> None:
    # Keys are for the clients of a service that stays.
    keys = "a-key-of-the-service-0123456789"
    result = ask("--image", "export/photos/coffee.jpg", HALFTONE_ARTIFACTS=str(artifacts), HALFTONE_API_KEYS=keys)

    assert result.returncode == 0, result.stderr
    assert "efficientnet_lite0" in result.stdout
    assert "espresso" in result.stdout or "cup" in result.stdout


def test_json_is_the_response_and_nothing_else(artifacts: Path) -> None:
    result = ask("--image", "export/photos/coffee.jpg", "--json", HALFTONE_ARTIFACTS=str(artifacts))

    assert json.loads(result.stdout)["model"] == "efficientnet_lite0"
    assert len(result.stderr.splitlines()) == 6


@pytest.mark.parametrize(("image", "what"), [("no.jpg", "no such file"), ("export", "it is a folder, not a picture")])
def test_a_missing_picture_is_a_wrong_request(image: str, what: str) -> None:
    result = ask("--image", image)

    assert result.returncode == 2
    assert result.stderr == f"error: --image {image}: {what}\n"


def test_the_sample_photographs_are_found_from_any_folder(tmp_path: Path) -> None:
    code = "from loadtest.reporting.cli import PHOTOS; print((PHOTOS / 'cat.jpg').is_file())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)

    assert found.stdout == b"True\n"


def test_a_failed_start_prints_the_end_of_the_log(tmp_path: Path) -> None:
    result = ask("--image", "export/photos/coffee.jpg", HALFTONE_ARTIFACTS=str(tmp_path))

    assert result.returncode == 1
    assert "python -m export --model efficientnet_lite0" in result.stderr


def test_another_file_is_refused_with_the_servers_message(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no picture")

    result = ask("--image", str(tmp_path / "note.jpg"), HALFTONE_ARTIFACTS=str(artifacts))

    assert result.returncode == 2
    assert result.stderr.endswith("these 10 bytes are not a picture: use a JPEG, PNG or WebP file\n")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 143, ""),
        (signal.SIGINT, 130, "interrupted: the servers were stopped, and no report was written\n"),
    ],
)
def test_its_server_ends_with_a_command_that_is_stopped(artifacts: Path, number: int, code: int, said: str) -> None:
    command = [sys.executable, "-m", "loadtest.ask", "--image", "export/photos/coffee.jpg"]
    settings = os.environ | QUICK | {"HALFTONE_ARTIFACTS": str(artifacts)}
    with subprocess.Popen(command, cwd=ROOT, env=settings, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(children_with(process.pid, "serve")) > 1, "a worker")
        family = family_of(process.pid)
        process.send_signal(number)
        _, error = process.communicate()

    assert (process.returncode, error) == (code, said)
    assert alive(family, seconds=20) == []
