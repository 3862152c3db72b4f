"""Training of a network of timm's registry: frozen stages, two rates, its bundle."""

from dataclasses import replace

import safetensors.torch
import torch

from models.bundle.bundle import WEIGHTS
from models.catalog import architecture
from models.weights import start
from tests.training.runs import TINY, run
from training.config.recipe import Optimisation, Transfer
from training.optim.optimizers import parameter_groups
from training.optim.transfer import HEAD, stage_of

NAME = "timm:test_convnext"


def test_frozen_stages_stay_and_the_others_learn(tmp_path):
    network = architecture(NAME)
    before = start(network, "random", classes=7, size=32, seed=1).module.state_dict()
    safetensors.torch.save_file(before, tmp_path / "weights.safetensors")
    recipe = replace(TINY, epochs=1, transfer=Transfer(size=32, freeze="late", drop_path=0.1))

    bundle = run(tmp_path / "timm", recipe, model=NAME, weights=str(tmp_path / "weights.safetensors"))

    assert bundle.manifest.architecture == "timm:test_convnext.r160_in1k"
    assert bundle.manifest.training["config"]["model"] == NAME
    after = safetensors.torch.load(bundle.read(WEIGHTS))
    changed = {stage_of(network, name) for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {2, 3, HEAD}


def test_the_head_has_a_rate_of_its_own():
    network = architecture(NAME)
    module = start(network, "random", classes=3, size=32, seed=0).module

    groups = parameter_groups(
        module, network, Optimisation(head_lr=1e-2, backbone_lr=1e-3), Transfer(layer_decay=0.5), pretrained=True
    )

    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    named = {name: rates[id(parameter)] for name, parameter in module.named_parameters()}
    assert named["head.fc.weight"] == 1e-2
    assert named["stem.0.weight"] < named["stages.3.blocks.0.conv_dw.weight"] <= 1e-3
