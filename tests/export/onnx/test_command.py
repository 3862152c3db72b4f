"""`python -m export.onnx --model`: a bundle, an architecture of the catalogue, or an unknown name."""

import os
from pathlib import Path

import pytest

from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.resolve import open_or_create
from tests.commands import run


def test_equal_weights_make_an_equal_version(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))

    again = open_or_create("efficientnet_lite0", weights=None)

    assert again.manifest.version == Bundle.open(artifacts / "efficientnet_lite0").manifest.version


def test_weights_for_a_bundle_that_has_its_own_are_refused(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))

    with pytest.raises(HalftoneError, match="already has weights"):
        open_or_create("efficientnet_lite0", weights="random")


def test_an_unknown_model_is_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    result = run("export.onnx", "--model", "resnet5", env=os.environ | {"HALFTONE_ARTIFACTS": str(tmp_path)})

    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "resnet50" in result.stderr
    assert list(tmp_path.iterdir()) == []
