"""A damaged export fails its proof, and the server refuses it with a message that names the measure."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.bundle.bundle import Bundle
from tests.commands import run
from tests.serving.process.starts import refused

MODEL = "efficientnet_lite0"


@pytest.fixture(scope="module")
def folder(artifacts: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder of bundles with a copy of the default one, and labelled pictures for it."""
    folder = tmp_path_factory.mktemp("sabotaged")
    shutil.copytree(artifacts / MODEL, folder / MODEL)
    shutil.copytree(labelled, folder / "pictures")
    return folder


def damage(bundle: Bundle, precision: str) -> None:
    """Replace the graph of this precision by one whose classes are shifted by one, with its right hash."""
    graph = onnx.load_from_string(bundle.read("model.fp16.onnx"))
    (weights,) = [each for each in graph.graph.initializer if list(each.dims) == [1000, 1280]]
    weights.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weights), 1, axis=0), weights.name))
    old = bundle.manifest.files["model.fp16.onnx"]
    bundle.write(
        f"model.{precision}.onnx", graph.SerializeToString(), made_by=old.made_by, made_from=list(old.made_from)
    )


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_damaged_export_is_detected_and_not_served(folder: Path, precision: str) -> None:
    variant = f"onnxruntime-{precision}"
    damage(Bundle.open(folder / MODEL), precision)

    arguments = ["--model", MODEL, "--variant", variant, "--data", str(folder / "pictures")]
    proved = run("export.parity", *arguments, env=os.environ | {"HALFTONE_ARTIFACTS": str(folder)})
    line = refused(folder, HALFTONE_VARIANT=variant)

    measure = "1000 classes are exchanged, such as 'tench' answers as "
    assert proved.returncode == 1, proved.stderr
    assert f"FAILED {variant}: {measure}" in proved.stderr
    assert measure in line
