"""Locust users, run in another process because locust patches the standard library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.servers.process import free_port
from tests.servers import ROOT, Server

NAMES = {
    "/classify, form",
    "/classify, body",
    "/classify, any size",
    "/classify, bad picture",
    "/classify_batch",
    "/v2/models/NAME/infer",
}
STUB = Path(__file__).parent / "stub_server.py"


def locust(host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--host", host, "--headless"]
    crowd = ["--users", "13", "--spawn-rate", "13", "--run-time", "3s", "--think-max", "0.2"]
    command += [*crowd, "--only-summary", "--json", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_kind_of_user_gets_right_responses(server: Server) -> None:
    for seconds in (3, 60):
        result = locust(server.url, "--run-time", f"{seconds}s")
        assert result.returncode == 0, result.stderr
        rows = {row["name"]: row for row in json.loads(result.stdout)}
        if len([name for name, row in rows.items() if row["num_requests"]]) == len(NAMES) + 1:
            break
        # On a busy machine the users may take longer to start.

    assert {name for name, row in rows.items() if row["num_requests"]} == NAMES | {"/models"}
    assert [name for name, row in rows.items() if row["num_failures"]] == []


def test_pictures_of_all_sizes_are_made_before_the_first_user() -> None:
    made = """
import loadtest.locustfile as ours
from locust.env import Environment

def made(*users):
    environment = Environment(user_classes=list(users))
    options = {"host": "x", "headless": True, "autostart": False, "images": ours.PHOTOS, "think_min": 0, "think_max": 0}
    environment.parsed_options = type("Options", (), options)()
    ours.read_photos(environment)
    return len({picture.data for picture in ours.PICTURES.resized})

print(made(ours.SingleUser), made(ours.SingleUser, ours.MixedSizesUser))
"""
    told = subprocess.run([sys.executable, "-c", made], cwd=ROOT, capture_output=True, text=True, check=True)

    photos, sizes, formats = 8, 4, 3
    assert told.stdout.split() == ["0", str(photos * sizes * formats)]


def test_responses_of_the_wrong_form_are_failures_despite_status_200() -> None:
    port = free_port()
    stub = subprocess.Popen([sys.executable, str(STUB), str(port)])
    try:
        result = locust(f"http://127.0.0.1:{port}", "--run-time", "2s", "SingleUser", "BatchUser")
    finally:
        stub.terminate()
        stub.wait()

    assert result.returncode == 1
    rows = json.loads(result.stdout)
    assert rows
    assert all(row["num_failures"] == row["num_requests"] for row in rows)


def test_a_run_without_a_server_names_the_flag() -> None:
    result = locust("")

    assert result.returncode == 2
    assert "error: name the server with --host, such as --host http://127.0.0.1:3000" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "deploy"], "error: --images deploy holds no JPEG, PNG or WebP picture"),
        (["--think-min", "2", "--think-max", "1"], "error: --think-min must be"),
    ],
)
def test_a_wrong_option_ends_the_run(arguments: list[str], message: str) -> None:
    result = locust("http://127.0.0.1:9", *arguments)

    assert result.returncode == 2
    assert message in result.stderr
