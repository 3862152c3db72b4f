from itertools import pairwise

import pytest
import torch

from models.catalog import architecture
from models.checkpoint import build
from models.common.errors import HalftoneError
from training.config.defaults import resolve_freeze
from training.config.recipe import Optimisation, Transfer
from training.loop.distributed import World
from training.loop.learner import Learner
from training.optim.optimizers import build_optimiser, parameter_groups, set_rates
from training.optim.precision import Precision, precision
from training.optim.transfer import HEAD, freezing, rate_factors, stage_of

NAMES = ("resnet18", "mobilenetv3_small", "efficientnet_b0", "vit_ti16")


def network(name, **options):
    torch.manual_seed(0)
    return architecture(name), build(architecture(name), classes=3, **options)


def learning(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def layers(name="resnet18", pictures=240, pretrained=True, **options):
    return freezing(architecture(name), Transfer(**options), pictures=pictures, pretrained=pretrained)


@pytest.mark.parametrize("freeze", ["head", "late"])
def test_random_weights_are_not_frozen(freeze):
    with pytest.raises(HalftoneError, match=f"--freeze {freeze} would keep random weights .* use --freeze full"):
        resolve_freeze(freeze, pictures=10, pretrained=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("freeze", "lowest"), [("head", HEAD), ("late", 2), ("full", 0)])
def test_trained_layers_by_strategy(name, freeze, lowest):
    entry, module = network(name)
    layers(name, freeze=freeze).apply(module, 0)
    expected = {each for each, _ in module.named_parameters() if stage_of(entry, each) >= lowest}
    assert learning(module) == expected
    assert {f"{entry.head}.weight", f"{entry.head}.bias"} <= expected
    assert (expected == {f"{entry.head}.weight", f"{entry.head}.bias"}) == (freeze == "head")
    assert (len(expected) == len(list(module.parameters()))) == (freeze == "full")


def test_gradual_unfreezing_unfreezes_one_stage_at_a_time():
    _, module = network("resnet18")
    gradual = layers(freeze="head", unfreeze_every=2)
    trained = []
    for epoch in range(10):
        gradual.apply(module, epoch)
        trained.append(len({name.split(".")[0] for name in learning(module)}))
    # fc, then layer4, layer3, layer2, and at last layer1 with conv1 and bn1.
    assert trained == [1, 1, 2, 2, 3, 3, 4, 4, 7, 7]
    assert layers(freeze="late").lowest_trained(100) == 2


def step(module, freezing_, images, **optimisation):
    config = Optimisation(head_lr=0.1, backbone_lr=0.1, **optimisation)
    groups = parameter_groups(module, freezing_.network, config, Transfer(), pretrained=True)
    how = precision("off", module, torch.device("cpu"), backbone_trained=True)
    learner = Learner(module, freezing_, build_optimiser(groups, config), how, config, world=World())
    learner.begin_epoch(0)
    learner.forward(images).square().sum().backward()
    learner.update(0, finite=bool(torch.isfinite(learner.clip_gradient())))


def half_precision_learner(module):
    config = Optimisation(head_lr=0.1, backbone_lr=0.1, optimiser="sgd")
    groups = parameter_groups(module, architecture("resnet18"), config, Transfer(), pretrained=True)
    how = Precision(device=torch.device("cpu"), dtype=torch.float16, memory_format=torch.contiguous_format)
    return Learner(module, layers(freeze="head"), build_optimiser(groups, config), how, config, world=World())


def test_a_gradient_that_overflows_changes_nothing_but_the_scale():
    _, module = network("resnet18")
    learner = half_precision_learner(module)
    learner.begin_epoch(0)
    for factor, expected in ((torch.inf, set()), (1.0, {"fc.weight", "fc.bias"})):
        before = learner.scaler.get_scale()

        def one_step(factor=factor):
            loss = learner.forward(torch.ones(2, 3, 32, 32)).square().sum() * factor
            learner.scaler.scale(loss).backward()
            learner.update(0, finite=bool(torch.isfinite(learner.clip_gradient())))

        moved = {name for name in changed(module, one_step) if "running" not in name and "num_batches" not in name}
        assert moved == expected
        assert learner.scaler.get_scale() == (before / 2 if not expected else before)


def test_a_checkpoint_of_another_device_keeps_this_devices_optimiser():
    _, module = network("resnet18")
    learner = half_precision_learner(module)
    state = learner.resume_state()
    for group in state["optimiser"]["param_groups"]:
        group["fused"] = True

    learner.restore(module.state_dict(), state)

    assert [group["fused"] for group in learner.optimiser.param_groups] == [None] * len(learner.optimiser.param_groups)


def changed(module, action):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    action()
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_nothing_that_is_frozen_not_even_statistics(name):
    entry, module = network(name, drop_path_rate=0.5)
    images = torch.randn(4, 3, 224 if name == "vit_ti16" else 64, 224 if name == "vit_ti16" else 64)
    assert changed(module, lambda: step(module, layers(name, freeze="head"), images)) == {
        f"{entry.head}.weight",
        f"{entry.head}.bias",
    }


def test_trained_layers_update_their_statistics_unless_norms_are_frozen():
    images = torch.randn(4, 3, 64, 64)
    entry, module = network("resnet18")
    late = changed(module, lambda: step(module, layers(freeze="late"), images))
    assert {stage_of(entry, name) for name in late} == {2, 3, HEAD}
    assert "layer4.0.bn1.running_mean" in late
    kept = changed(module, lambda: step(module, layers(freeze="full", freeze_norm=True), images))
    assert "layer4.0.bn1.weight" in kept
    assert not [name for name in kept if "running" in name or "num_batches" in name]


def test_frozen_layers_are_in_evaluation_mode():
    _, module = network("vit_ti16", drop_path_rate=0.9, img_size=32)
    frozen = layers("vit_ti16", freeze="head")
    frozen.train_mode(module, 0)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(module.forward_features(images), module.forward_features(images))
    assert module.training
    layers("vit_ti16", freeze="full").train_mode(module, 0)
    assert not torch.equal(module.forward_features(images), module.forward_features(images))


def factors(name="resnet18", *, pretrained=True, **options):
    entry, module = network(name)
    return rate_factors(module, entry, Transfer(**options), pretrained=pretrained)


def test_stage_multipliers():
    found = factors(stage_multipliers=(0.1, 0.3, 0.6, 1.0))
    names = ("conv1.weight", "layer1.0.bn1.bias", "layer2.0.conv1.weight", "layer3.1.bn2.weight", "layer4.0.bn1.bias")
    assert [found[name] for name in names] == [0.1, 0.1, 0.3, 0.6, 1.0]
    assert "fc.weight" not in found
    assert set(factors(pretrained=False).values()) == {1.0}


def test_layer_decay_falls_from_the_head_to_the_input():
    found = factors("vit_ti16", layer_decay=0.5)
    depth = [found[f"blocks.{index}.attn.qkv.weight"] for index in range(12)]
    assert [later / earlier for earlier, later in pairwise(depth)] == pytest.approx([2.0] * 11)
    assert found["pos_embed"] < depth[0]
    assert depth[-1] <= 0.5
    assert factors("vit_ti16", layer_decay=0.5, pretrained=False) == found


def groups(name="vit_ti16", *, pretrained=True, transfer=None, **options):
    entry, module = network(name)
    config = Optimisation(**options)
    found = parameter_groups(module, entry, config, transfer or Transfer(), pretrained=pretrained)
    by_id = {id(parameter): group for group in found for parameter in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in module.named_parameters()}, found, config


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_spares_norms_biases_and_embeddings(name):
    found, all_groups, _ = groups(name, weight_decay=0.05)
    for parameter, group in found.items():
        spared = parameter.endswith("bias") or "norm" in parameter or "bn" in parameter or "downsample.1" in parameter
        spared |= parameter in ("pos_embed", "cls_token")
        assert group["weight_decay"] == (0.0 if spared else 0.05), parameter
    assert sum(len(group["params"]) for group in all_groups) == len(found)


def test_head_and_backbone_have_separate_rates():
    found, _, _ = groups(head_lr=1e-2, backbone_lr=1e-4)
    rates = [found[name]["peak_lr"] for name in ("head.weight", "blocks.11.attn.qkv.weight", "blocks.0.norm1.weight")]
    assert rates == pytest.approx([1e-2, 1e-4, 1e-5])
    random, _, _ = groups(head_lr=1e-2, backbone_lr=1e-4, pretrained=False)
    assert {group["peak_lr"] for group in random.values()} == {1e-2}


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_schedule_scales_every_group_s_peak(optimiser):
    _, all_groups, config = groups(optimiser=optimiser, head_lr=1e-2, backbone_lr=1e-4)
    built = build_optimiser(all_groups, config)
    set_rates(built, 0.5)
    set_rates(built, 0.25)
    assert [group["lr"] for group in built.param_groups] == [group["peak_lr"] / 4 for group in built.param_groups]
