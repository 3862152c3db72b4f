"""The factory of stand-ins that tests of swaps share."""

from pathlib import Path

import pytest

from tests.serving.lifecycle.stand_in_service import Factory


@pytest.fixture
def load(artifacts: Path) -> Factory:
    return Factory(artifacts)
