"""Short runs of the robustness tests: their results must not depend on the speed of the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.malformed.bombs import PICTURES
from loadtest.reporting.cli import CompareError
from loadtest.schema import __main__ as schema
from tests.servers import PHOTOS, QUICK, ROOT, environment


def run(artifacts: Path, output: Path, name: str, *options: str) -> dict[str, Any]:
    """Run a command of loadtest and return its figures by name."""
    command = [sys.executable, "-m", f"loadtest.{name}", *options, "--output", str(output)]
    # On a busy machine, no request may be too late.
    env = environment(artifacts, **QUICK, HALFTONE_DEADLINE="100") | {"PATH": os.environ["PATH"]}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1), result.stdout + result.stderr
    report = json.loads(output.with_suffix(".json").read_text())
    assert report["title"] in output.with_suffix(".md").read_text()
    return {figure["name"]: figure["value"] for figure in report["figures"]} | {"output": result.stdout + result.stderr}


def test_malformed_files(small: Path, tmp_path: Path) -> None:
    options = ("--count", "400", "--rounds", "10", "--images", str(PHOTOS), "--bomb-megapixels", "0.25")
    found = run(small, tmp_path / "a", "malformed", *options)

    assert found["malformed files"] == 410
    assert (found["lost connections"], found["5xx responses"]) == (0, 0)
    assert (found["valid files that failed or differed"], found["serves at the end"]) == (0, True)
    bombs = {
        name.removeprefix("bomb: "): text.split(",")[0] for name, text in found.items() if name.startswith("bomb: ")
    }
    assert set(bombs) > {*PICTURES, "pipelining, nothing read"}
    assert set(bombs.values()) == {"200", "400", "413", "closed"}
    assert found["requests of others that failed meanwhile"] == 0


def test_overload_disconnecting_clients_and_slow_connections(small: Path, tmp_path: Path) -> None:
    options = ("--seconds", "3", "--leavers", "40", "--slow", "30")
    found = run(small, tmp_path / "a", "overload", *options)

    assert found["rejections other than 429 or 503 with Retry-After"] == 0
    assert found["pictures of these clients that were run"] == 0
    assert found["other requests that failed"] == 0
    assert found["heat maps meanwhile"] > 0
    assert found["classifications that failed"] == 0


def test_the_service_keeps_to_its_openapi_description(small: Path, tmp_path: Path) -> None:
    found = run(small, tmp_path / "a", "schema", "--cases", "100")

    assert found["runs with a failure"] == 0, found["output"]
    assert found["requests"] >= 100


def test_schema_names_the_missing_package_before_a_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start_server(**_: str) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(schema.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(schema, "started", start_server)

    with pytest.raises(CompareError, match=r"schemathesis is not installed: run `pip install '\.\[loadtest\]'`"):
        schema.main(schema.Schema(cases=1))
