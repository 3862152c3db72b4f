"""The load tests of abuse, in short: what they find must not depend on how fast the machine is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest import overload
from loadtest.malformed import __main__ as malformed
from loadtest.schema import __main__ as schema
from tests.servers import PHOTOS, QUICK, ROOT, environment


def run(artifacts: Path, output: Path, name: str, *options: str) -> dict[str, Any]:
    """Runs a command of loadtest; returns its figures by name."""
    command = [sys.executable, "-m", f"loadtest.{name}", *options, "--output", str(output)]
    env = environment(artifacts, **QUICK) | {"PATH": os.environ["PATH"]}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["title"] in output.with_suffix(".md").read_text()
    return {figure["name"]: figure["value"] for figure in report["figures"]} | {"said": result.stdout + result.stderr}


def test_malformed_files(artifacts: Path, tmp_path: Path) -> None:
    found = run(artifacts, tmp_path / "a", "malformed", "--count", "400", "--rounds", "10", "--images", str(PHOTOS))

    assert found["odd files"] == 410
    assert (found["connections broken"], found["answers of 5xx"]) == (0, 0)
    assert (found["good answers that failed or differed"], found["answers as before at the end"]) == (0, True)


def test_overload_leavers_and_slow_connections(artifacts: Path, tmp_path: Path) -> None:
    options = ("--seconds", "3", "--leavers", "40", "--slow", "30")
    found = run(artifacts, tmp_path / "a", "overload", *options)

    assert found["refused otherwise than 429 or 503 with Retry-After"] == 0
    assert found["pictures of theirs that were run"] == 0
    assert found["others that failed"] == 0


def test_the_service_keeps_to_its_openapi_description(artifacts: Path, tmp_path: Path) -> None:
    found = run(artifacts, tmp_path / "a", "schema", "--cases", "100")

    assert found["runs with a failure"] == 0, found["said"]
    assert found["requests"] >= 100


@pytest.mark.parametrize("config", [malformed.Malformed(count=0), overload.Overload(slow=0), schema.Schema(cases=0)])
def test_wrong_options_are_refused(config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code = sys.modules[type(config).__module__].main(config)

    assert code == 2
    assert capsys.readouterr().err.startswith("error: ")
