"""Fixtures: an empty folder of bundles, and the commands that use it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import run

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

    def command(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return run(module, *arguments, env=os.environ | settings | {"BENTOML_DO_NOT_TRACK": "True"})

    return command
