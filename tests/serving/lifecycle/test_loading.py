"""A model is loaded only if it classifies a sample photograph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.runtime import Pixels
from models.bundle.bundle import Bundle
from models.bundle.errors import FileMissingError
from models.bundle.manifest import Manifest
from models.bundle.store import DEFAULT_MODEL
from models.common.errors import HalftoneError
from serving.lifecycle.loading import check_first_answer
from serving.lifecycle.selection import check_bundle
from serving.settings import Settings
from tests.serving.stand_in import StandIn


class Broken(StandIn):
    """Runtime with the same logit for every class."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self._logit = logit

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        return np.full((len(pixels), self.classes), self._logit, np.float32)


@pytest.mark.parametrize(
    ("variant", "command"),
    [
        ("tensorrt-fp16", "export.trt --model efficientnet_lite0 --precision fp16 --runtime tensorrt"),
        ("tensorrt_rtx-fp32", "export.trt --model efficientnet_lite0 --precision fp32 --runtime tensorrt_rtx"),
        ("onnxruntime-int8", "export.onnx --model efficientnet_lite0 --precision int8"),
    ],
)
def test_a_variant_without_its_file_names_the_command_that_makes_it(
    artifacts: Path, variant: str, command: str
) -> None:
    bundle, settings = Bundle.open(artifacts / DEFAULT_MODEL), Settings.from_environment({"HALFTONE_VARIANT": variant})

    with pytest.raises(FileMissingError, match=f": make it with `HALFTONE_ARTIFACTS={artifacts} python -m {command}`$"):
        check_bundle(DEFAULT_MODEL, bundle, settings)


@pytest.fixture(scope="module")
def manifest(artifacts: Path) -> Manifest:
    return Bundle.open(artifacts / DEFAULT_MODEL).manifest


def test_a_sound_model_passes(manifest: Manifest) -> None:
    runtime = StandIn()
    check_first_answer(runtime, manifest)
    assert runtime.pictures == 1


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_a_model_with_logits_that_are_not_finite_fails(manifest: Manifest, logit: float) -> None:
    with pytest.raises(HalftoneError, match="can't classify a picture"):
        check_first_answer(Broken(logit), manifest)


def test_a_model_that_raises_an_error_fails(manifest: Manifest) -> None:
    other_size = replace(manifest, input=replace(manifest.input, size=32))
    with pytest.raises(HalftoneError, match="can't classify a picture"):
        check_first_answer(StandIn(), other_size)
