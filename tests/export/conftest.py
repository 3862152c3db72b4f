"""The default bundle, to read and to spoil."""

import shutil
from pathlib import Path

import pytest

from models.bundle.bundle import Bundle

NAME = "efficientnet_lite0"


@pytest.fixture(scope="session")
def default(artifacts: Path) -> Bundle:
    """The proven default bundle, not to be changed."""
    return Bundle.open(artifacts / NAME)


@pytest.fixture
def copied(artifacts: Path, tmp_path: Path) -> Bundle:
    """A copy of it."""
    shutil.copytree(artifacts / NAME, tmp_path / NAME)
    return Bundle.open(tmp_path / NAME)
