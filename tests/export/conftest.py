"""A proven bundle of the default network, to read and to spoil."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bundle.bundle import Bundle
from tests.cache import made_once

NAME = "efficientnet_lite0"


@pytest.fixture(scope="session")
def default(small: Path) -> Bundle:
    """The default network's proven bundle, not to be changed."""
    return Bundle.open(small / NAME)


Exported = Callable[[str, int], Bundle]


@pytest.fixture(scope="session")
def exported() -> Exported:
    """The bundle of a network with an input size, with its FP32 and FP16 graphs; not to be changed."""

    def exported(network: str, size: int) -> Bundle:
        return Bundle.open(made_once(f"{network}-{size}", lambda folder: _export(folder, network, size)) / "mine")

    return exported


def _export(folder: Path, network: str, size: int) -> None:
    # PyTorch takes seconds to load, and most tests here need none of it.
    from export.onnx.export import export_onnx
    from tests.export.trained import trained_bundle

    bundle = trained_bundle(folder / "mine", network, size)
    for precision in ("fp32", "fp16"):
        export_onnx(bundle, precision)  # type: ignore[arg-type]


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Bundle:
    """A copy of it."""
    shutil.copytree(small / NAME, tmp_path / NAME)
    return Bundle.open(tmp_path / NAME)
