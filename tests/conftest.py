"""What every test may use: the default bundle, made once by the command that a user types."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.servers import ROOT, Server, serve


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `gpu` run where PyTorch finds one."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles that holds the proven default one; copy it before changing anything in it.

    All processes of a run share it: making it takes both cores half a minute.
    """
    base = tmp_path_factory.getbasetemp()
    # Each process of pytest-xdist has a folder of its own inside the run's.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, finished = shared / "artifacts", shared / "artifacts.finished"
    with FileLock(shared / "artifacts.lock"):
        if not finished.exists():
            _export_default(folder)
            finished.touch()
    return folder


def _export_default(folder: Path) -> None:
    command = [sys.executable, "-m", "export", "--model", "efficientnet_lite0"]
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(folder)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="session")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as it is by default."""
    with serve(artifacts, tmp_path_factory.mktemp("server") / "log") as running:
        yield running
