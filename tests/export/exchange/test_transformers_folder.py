"""Folders of Hugging Face transformers: the same logits as transformers gave, labels, preprocessing, clear refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from export.exchange.hf_read import pull_folder
from models.catalog import architecture
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.spec import IMAGENET_MEAN
from tests.commands import run
from tests.export.exchange.transformers_models import CONFIGS, HALF, LABELS, save

VIT = "ViTForImageClassification"

NETWORKS = {
    VIT: ("vit_ti16", 32, "bilinear", 32),
    "DeiTForImageClassification": ("timm:deit_tiny_distilled_patch16_224.fb_in1k", 32, "bicubic", 36),
    "DeiTForImageClassificationWithTeacher": ("timm:deit_tiny_distilled_patch16_224.fb_in1k", 32, "bicubic", 32),
    "SwinForImageClassification": ("swin_t", 224, "bicubic", 224),
    "ConvNextForImageClassification": ("timm:convnext_atto.d2_in1k", 64, "bicubic", 73),
    "ResNetForImageClassification": ("resnet18", 64, "bicubic", 73),
}
"""Network, size of its input, filter, and the side to which images are resized."""

LOGITS = {
    VIT: [[-0.185511, 0.393818, -0.008387], [0.001380, -0.289525, -0.400450]],
    "DeiTForImageClassification": [[-1.736440, -0.592762, 0.900596], [-1.434688, -0.041635, 0.386510]],
    "DeiTForImageClassificationWithTeacher": [[-0.186942, 0.721549, 0.097096], [0.116725, 1.358299, 0.307675]],
    "SwinForImageClassification": [[0.129492, 0.162910, -1.209803], [0.332105, -0.322228, -1.188638]],
    "ConvNextForImageClassification": [[0.535150, -0.324569, -0.718273], [0.530044, -0.328547, -0.719189]],
    "ResNetForImageClassification": [[0.193744, 0.511451, 0.073020], [0.236158, 0.537754, 0.097356]],
}
"""What transformers 5.24.0 with PyTorch 2.14.1 on a processor answered for `planes`, on 2026-11-29."""


def planes(size: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(1).normal(0, 1, (2, 3, size, size)).astype(np.float32))


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_logits_are_those_of_transformers(kind: str, home: Path, tmp_path: Path) -> None:
    save(kind, tmp_path / "saved")

    bundle = pull_folder(tmp_path / "saved", home / "pulled")

    manifest = bundle.manifest
    assert (manifest.architecture, manifest.labels, manifest.trained) == (
        NETWORKS[kind][0],
        ("ant", "bee", "cow"),
        True,
    )
    spec = manifest.input
    assert (spec.size, spec.interpolation, spec.resize_to) == NETWORKS[kind][1:]
    with torch.inference_mode():
        logits = load_module(bundle)(planes(spec.size))
    torch.testing.assert_close(logits, torch.tensor(LOGITS[kind]), rtol=0, atol=1e-4)


def test_what_the_processor_does_is_kept_or_said(home: Path, tmp_path: Path) -> None:
    for kind in (VIT, "ResNetForImageClassification"):
        save(kind, tmp_path / kind)
    squashed, plain = (
        pull_folder(tmp_path / kind, home / kind).manifest for kind in (VIT, "ResNetForImageClassification")
    )

    assert squashed.input.mean == squashed.input.std == (0.5, 0.5, 0.5)
    assert squashed.source.endswith("squashes images to squares, Halftone cuts the centre square out")
    assert (plain.input.mean, plain.input.std) == ((0, 0, 0), (1, 1, 1))
    assert plain.source == "the folder ResNetForImageClassification that transformers wrote"


Edit = Callable[[dict[str, Any]], object]


def edit(folder: Path, change: Edit, file: str = "config.json") -> None:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))


def refused(folder: Path, home: Path, words: str) -> None:
    with pytest.raises(HalftoneError, match=words) as caught:
        pull_folder(folder, home / "pulled")
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    save(VIT, tmp_path / "saved")
    return tmp_path / "saved"


def test_equal_labels_get_their_index(vit: Path, home: Path) -> None:
    edit(vit, lambda c: c.update(id2label=LABELS | {"2": "ant"}))

    assert pull_folder(vit, home / "pulled").manifest.labels == ("ant (0)", "bee", "ant (2)")


def test_attention_without_a_bias(vit: Path, home: Path) -> None:
    state = safetensors.numpy.load_file(vit / "model.safetensors")
    bare = {name: value for name, value in state.items() if not name.endswith(("query.bias", "key.bias", "value.bias"))}
    safetensors.numpy.save_file(bare, vit / "model.safetensors")

    assert float(load_module(pull_folder(vit, home / "pulled")).state_dict()["blocks.0.attn.qkv.bias"].abs().max()) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c.update(architectures=["BertForMaskedLM"]),
            r"holds a BertForMaskedLM of transformers, and these are",
        ),
        (lambda c: c.pop("architectures"), r"holds a vit of transformers, and these are read: ViTForImage"),
        (
            lambda c: c.update(hidden_size=200),
            r"no network with the sizes of its ViT.*hidden_size=200.*vit_tiny_patch16",
        ),
        (lambda c: c.update(hidden_act="relu"), r"has hidden_act=relu, and timm's networks have gelu"),
        (lambda c: c.update(image_size=64), r"its weights are for 64 pixels, and preprocessor_config\.json makes 32"),
        (lambda c: c.update(id2label={"0": "ant", "2": "bee"}), "id2label of the configuration has gaps"),
        (lambda c: c.pop("id2label"), r"do not fit the network.*head\.weight is 3 x 192 in the file and 2 x 192"),
        (lambda c: c.pop("model_type"), "nor one of transformers"),
    ],
)
def test_models_that_are_not_read(change: Edit, words: str, vit: Path, home: Path) -> None:
    edit(vit, change)

    refused(vit, home, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(do_rescale=False), "neither resizes nor rescales"),
        (lambda c: c.update(rescale_factor=1 / 127.5), r"only 1/255 is read"),
        (lambda c: c.update(resample=1), r"has resample=1: bilinear \(2\) and bicubic \(3\) are read"),
        (lambda c: c.update(size={"height": 32, "width": 48}), r"and Halftone's networks see squares"),
        (lambda c: c.update(size={"shortest_edge": 32}), r"cuts nothing out: the network sees no square"),
        (lambda c: c.update(do_center_crop=True, crop_size=64), r"cuts 64 pixels out of 32"),
        (lambda c: c.update(image_mean=None), "not an input specification"),
    ],
)
def test_preprocessing_that_has_no_equal(change: Edit, words: str, vit: Path, home: Path) -> None:
    edit(vit, change, "preprocessor_config.json")

    refused(vit, home, words)


def test_a_short_side_of_which_the_centre_is_cut_out(vit: Path, home: Path) -> None:
    edit(
        vit,
        lambda c: c.update(
            HALF, size={"shortest_edge": 37}, do_center_crop=True, crop_size=32, image_mean=[*IMAGENET_MEAN]
        ),
        "preprocessor_config.json",
    )

    manifest = pull_folder(vit, home / "pulled").manifest

    assert (manifest.input.resize_to, manifest.input.mean) == (37, IMAGENET_MEAN)
    assert manifest.source == "the folder saved that transformers wrote"


def test_files_that_are_missing_or_broken(vit: Path, home: Path) -> None:
    (vit / "preprocessor_config.json").write_text("{")
    refused(vit, home, r"preprocessor_config\.json is not JSON")
    (vit / "preprocessor_config.json").unlink()
    refused(vit, home, r"no preprocessor_config\.json in it, which says what the network sees")


def test_tensors_of_another_model(vit: Path, home: Path) -> None:
    state = safetensors.numpy.load_file(vit / "model.safetensors")
    for name in ("vit.encoder.layer.3.attention.attention.key.weight", "vit.layernorm.bias"):
        del state[name]
    safetensors.numpy.save_file(state, vit / "model.safetensors")

    refused(vit, home, r"do not fit the network.*missing: blocks\.3\.attn\.qkv, norm")


def test_the_command(vit: Path, home: Path) -> None:
    result = run("export.pull", "--from", vit, "--name", "mine")

    assert result.returncode == 0, result.stderr
    assert "made " in result.stdout
    assert "vit_ti16, 3 classes" in result.stdout
    assert architecture("vit_ti16").name == "vit_ti16"
