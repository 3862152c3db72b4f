"""An empty folder of bundles, and the command line beside it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ROOT

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of bundles."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(folder))
    return folder


@pytest.fixture
def command(home: Path, tmp_path: Path) -> Command:
    """`python -m export.NAME ARGUMENTS` with those bundles and a model store of its own."""
    settings = {"HALFTONE_ARTIFACTS": str(home), "BENTOML_HOME": str(tmp_path / "bentoml")}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | settings | {"BENTOML_DO_NOT_TRACK": "True"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
