"""Finished bundles side by side, from their manifests and records alone."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from export.onnx.arithmetic import multiply_accumulates
from models.bundle.bundle import Bundle
from models.catalog import architecture
from models.checkpoint import load_module
from tests.commands import run
from tests.export.conftest import Exported
from tests.export.trained import trained_bundle
from tests.samples import edit_manifest

METRICS = {"test_top1": 0.9, "test_top1_interval": [0.88, 0.92], "test_pictures": 1000}
TRAINING = {
    "config": {"recipe": "general", "weights": "random", "data": "clothes"},
    "data": {"description": "clothes"},
    "history": [{"epoch": 1}, {"epoch": 2}],
    "metrics": METRICS,
}


@pytest.fixture
def bundles(copied: Bundle) -> Path:
    """An exported bundle as a training would have left it, and one that nothing is known of."""
    edit_manifest(copied.folder, lambda values: values.update(training=TRAINING))
    copied.folder.rename(copied.folder.with_name("lite"))
    trained_bundle(copied.folder.with_name("bare"), "mobilenetv3_small", 32)
    return copied.folder.parent


def compared(folder: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    result = run("export.benchmark.compare", *arguments, env=os.environ | {"HALFTONE_ARTIFACTS": str(folder)})
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout, result.stderr


def test_a_row_says_what_manifest_and_records_know(bundles: Path, tmp_path: Path) -> None:
    table, picture = tmp_path / "families.md", tmp_path / "families.png"

    printed, _ = compared(bundles, "--models", "bare,lite", "--json", "--output", table, "--picture", picture)
    lite, bare = json.loads(printed)["results"]

    assert (lite["model"], lite["recipe"], lite["epochs"], lite["initial"]) == ("lite", "general", 2, "random")
    assert (lite["accuracy"], lite["interval"]) == (0.9, [0.88, 0.92])
    assert lite["pictures"] == "1,000 test pictures of clothes"
    # The catalogue's parameters, and operations in proportion to the pixels: 96 instead of 224 px a side.
    network = architecture("efficientnet_lite0")
    assert lite["parameters"] == network.parameters
    assert lite["macs"] == pytest.approx(network.macs * (96 / 224) ** 2, rel=0.05)
    assert lite["agreement"].keys() >= {"fp16", "fp32"}
    assert lite["milliseconds"] > 0
    assert (bare["accuracy"], bare["macs"], bare["variant"]) == (None, None, None)
    assert "| lite | efficientnet_lite0 | general | 2 | random | 96 | 90.00% | 88.0% to 92.0% |" in table.read_text()
    assert "accuracy on 1,000 test pictures of clothes" in table.read_text()
    with Image.open(picture) as drawing:
        assert drawing.size == (1036, 633)


def test_accuracies_of_different_pictures_are_named_as_such(bundles: Path) -> None:
    shutil.copytree(bundles / "lite", bundles / "other")
    other = TRAINING | {"metrics": METRICS | {"test_pictures": 500}}
    edit_manifest(bundles / "other", lambda values: values.update(training=other))

    printed, _ = compared(bundles, "--models", "lite,other")

    assert "accuracies are of different pictures and can't be compared" in " ".join(printed.split())


@pytest.mark.parametrize(("network", "size"), [("vit_ti16", 112), ("resnet18", 64), ("mobilenetv3_small", 96)])
def test_multiply_accumulates_are_those_of_the_bundles_own_size(exported: Exported, network: str, size: int) -> None:
    bundle = exported(network, size)
    module = load_module(bundle)
    for attention in module.modules():
        if hasattr(attention, "fused_attn"):
            attention.fused_attn = False
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, 3, size, size))

    assert multiply_accumulates(bundle.read("model.fp32.onnx")) == counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--models", "bare,bare"), "must name each bundle once"),
        (("--models", "bare", "--picture", "x.jpg"), "must be named .png"),
        (("--models", "bare", "--picture", "x.png"), "no bundle has both an accuracy and a measured time"),
    ],
)
def test_wrong_requests_are_refused(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_bundle(tmp_path / "bare", "mobilenetv3_small", 32)
    monkeypatch.chdir(tmp_path)

    assert complaint in compared(tmp_path, *arguments, code=2)[1]
