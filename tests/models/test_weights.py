"""Test the initial network of a training run."""

import argparse
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from models.catalog import architecture
from models.checkpoint import fit_input_size
from models.common.errors import HalftoneError
from models.weights import load_checkpoint, start


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small", "efficientnet_b0", "vit_ti16"])
def test_random_weights_start_with_nearly_equal_probabilities(name):
    network = architecture(name)
    module = start(network, "random", classes=4, size=32, seed=0).module.train()
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = float(cross_entropy(module(images), torch.arange(16) % 4))
    assert math.log(4) - 0.2 < loss < math.log(4) + 0.5


def test_a_start_is_a_function_of_its_seed():
    network = architecture("mobilenetv3_small")
    first, again, other = (
        start(network, "random", classes=4, size=32, seed=seed).module.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize(("name", "sizes"), [("vit_ti16", (64, 96)), ("deit_ti16", (224, 64)), ("swin_t", (224, 96))])
def test_a_transformers_file_of_any_size_is_resampled(tmp_path, name, sizes):
    network = architecture(name)
    trained = start(network, "random", classes=4, size=sizes[0], seed=0).module
    path = tmp_path / "weights.safetensors"
    save_file(trained.state_dict(), path)
    images = torch.randn(2, 3, sizes[1], sizes[1], generator=torch.Generator().manual_seed(0))

    module = start(network, str(path), classes=4, size=sizes[1], seed=1).module

    fit_input_size(trained, network, sizes[1])
    torch.testing.assert_close(module(images), trained(images))


def test_a_bundle_has_the_input_size_of_the_files_position_embeddings(tmp_path):
    network = architecture("vit_ti16")
    trained = start(network, "random", classes=4, size=96, seed=0).module
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")

    loaded = load_checkpoint(network, tmp_path / "weights.safetensors", size=None)

    assert loaded.input == replace(network.input, size=96)
    assert torch.equal(loaded.module.state_dict()["pos_embed"], trained.state_dict()["pos_embed"])


def test_a_file_with_relative_positions_of_another_size_names_the_flag(tmp_path):
    network = architecture("swin_t")
    save_file(
        start(network, "random", classes=4, size=96, seed=0).module.state_dict(), tmp_path / "weights.safetensors"
    )

    with pytest.raises(HalftoneError, match=r"another input size than 224 pixels: name that size with --size"):
        load_checkpoint(network, tmp_path / "weights.safetensors", size=None)


class Opaque:
    """What weights_only refuses to load."""


class Code:
    """What runs code when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pt", "weights.ckpt", "weights.pth.tar"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, name):
    torch.save({"state_dict": Code(str(tmp_path / "trace"))}, tmp_path / name)

    with pytest.raises(HalftoneError, match=r"can't be read without running code from it \(it holds posix\.mkdir\)"):
        start(architecture("mobilenetv3_small"), str(tmp_path / name), classes=4, size=32, seed=0)

    assert not (tmp_path / "trace").exists()


def test_checkpoints_of_torch_save_are_unwrapped(tmp_path):
    network = architecture("mobilenetv3_small")
    trained = start(network, "random", classes=4, size=32, seed=0).module.state_dict()
    other, one = {name: torch.zeros_like(value) for name, value in trained.items()}, torch.ones(())
    forms = {
        "plain.pth": trained,
        "lightning.ckpt": {"state_dict": {f"model.{name}": value for name, value in trained.items()}, "epoch": 3},
        "parallel.pt": {"model": {f"module.{name}": value for name, value in trained.items()}, "step": 1},
        "named.pth": {"model_state_dict": trained, "optimizer": {"lr": 0.1}},
        "compiled.pth.tar": {"state_dict": {f"_orig_mod.module.{name}": value for name, value in trained.items()}},
        "average.pt": {"model": {f"module.{name}": value for name, value in trained.items()} | {"n_averaged": one}},
        "metrics.ckpt": {
            "state_dict": {f"model.{name}": value for name, value in trained.items()} | {"criterion.weight": one},
            "best": {"accuracy": np.float64(0.9), "epoch": np.int64(3)},
            "folder": tmp_path,
        },
        "timm.pth.tar": {"state_dict": other, "state_dict_ema": trained, "args": argparse.Namespace(lr=0.1)},
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / name)
        module = start(network, str(tmp_path / name), classes=4, size=32, seed=1).module
        assert all(torch.equal(value, trained[key]) for key, value in module.state_dict().items()), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds no tensors by name"),
        (Opaque(), r"can't be read without running code.*torch\.save\(model\.state_dict\(\)"),
        (
            {"state_dict": {"classifier.bias": torch.zeros(4), "stem.weight": torch.zeros(1)}},
            r"fit the network, which has \d+ layers: missing: bn1, .* and \d+ more; unknown: stem\. ",
        ),
    ],
)
def test_checkpoints_that_can_not_be_used(tmp_path, content, message):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(HalftoneError, match=message):
        start(architecture("mobilenetv3_small"), str(tmp_path / "weights.pth"), classes=4, size=32, seed=0)


@pytest.mark.parametrize("content", [b"PK damaged", b"\x80 damaged", b"junk", b""])
def test_files_that_are_no_weights(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(HalftoneError, match=r"weights\.pth (can't be read|is neither)"):
        start(architecture("mobilenetv3_small"), str(tmp_path / "weights.pth"), classes=4, size=32, seed=0)
