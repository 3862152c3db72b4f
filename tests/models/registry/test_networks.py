"""`timm:NAME`: any network of timm's registry beside the catalogue."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from models.bundle.store import bundle_folder
from models.catalog import architecture
from models.checkpoint import build, fit_input_size
from models.common.errors import HalftoneError
from models.registry import hub
from models.resolve import open_or_create
from models.spec import TRANSFORMERS, Architecture
from models.weights import start
from tests.commands import run

CURATED = ["resnet18", "mobilenetv3_small", "vit_ti16", "swin_t", "pvt_v2_b0"]

OTHERS = {
    "test_convnext": "convnext",
    "mobilevit_xxs": "transformer",
    "eva02_tiny_patch14_224": "transformer",
    "vit_dwee_patch16_reg1_gap_256": "transformer",
    "levit_128s": "transformer",
    "mixer_s32_224": "mlp_mixer",
    "deit_tiny_distilled_patch16_224": "transformer",
}
"""Other kinds of networks, by their smallest, and their family."""


def stages(network: Architecture) -> dict[str, int]:
    """Return the stage of every parameter of the network; 4 is the head."""
    with torch.device("meta"):
        names = [name for name, _ in build(network, classes=2).named_parameters()]
    groups = [*network.stages, (network.head,)]
    return {
        name: next((number for number, group in enumerate(groups) if any(within(name, each) for each in group)), -1)
        for name in names
    }


def within(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")


@pytest.mark.parametrize("name", CURATED)
def test_timms_own_description_is_what_the_catalogue_says(name: str) -> None:
    curated = architecture(name)

    found = architecture(f"timm:{curated.timm_name}")

    assert found.name == f"timm:{curated.timm_name}"
    assert (found.input, found.head) == (curated.input, curated.head)
    assert (found.parameters, found.macs) == (curated.parameters, curated.macs)
    assert stages(found) == stages(curated)
    assert (found.family in TRANSFORMERS) == (curated.family in TRANSFORMERS)


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_have_four_stages_and_a_head(name: str) -> None:
    found = architecture(f"timm:{name}")

    numbers = stages(found)
    # A head of several layers, and the second one of a distilled network, are in no stage either.
    assert all(each.startswith("head") for each, number in numbers.items() if number == -1)
    assert set(numbers.values()) >= {0, 1, 2, 3, 4}
    assert found.family == OTHERS[name]
    assert found.parameters > 1e5
    assert found.macs > 1e5


def test_a_name_without_a_tag_has_timms_default() -> None:
    assert architecture("timm:convnext_atto").name == "timm:convnext_atto.d2_in1k"
    assert architecture("timm:convnext_atto").pretraining == "ImageNet-1k"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:convnext_tyny", r"has no model 'convnext_tyny': did you mean timm:convnext_tiny or .*list_models"),
        (
            "timm:convnext_atto.d3_in1k",
            r"has no weights 'd3_in1k' of convnext_atto: choose timm:convnext_atto\.d2_in1k",
        ),
        ("timm:", r"has no model ''"),
        ("timm:hf-hub:someone/model", r"has no model 'hf-hub:someone/model'"),
        ("convnext_tiny", r"there is no architecture 'convnext_tiny'.* and timm:NAME is any other of timm's"),
    ],
)
def test_names_that_timm_does_not_have(name: str, words: str) -> None:
    with pytest.raises(HalftoneError, match=words):
        architecture(name)


def test_the_command_shows_one() -> None:
    shown = run("models", "timm:test_convnext").stdout.splitlines()

    first = [line.split()[0] for line in shown if line.strip() and "─" not in line]
    assert first == ["name", "timm:test_convnext.r160_in1k"]
    document = json.loads(run("models", "timm:test_convnext", "--json").stdout)
    assert document[0]["input"]["size"] == 160
    both = run("models", "resnet18", "--family", "vit")
    assert (both.returncode, both.stderr.count("\n")) == (2, 1)


def test_its_bundle_has_a_name_that_is_safe_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))

    bundle = open_or_create("timm:test_convnext", weights="random")

    assert bundle.folder == bundle_folder("timm:test_convnext") == tmp_path / "timm-test_convnext"
    assert (bundle.manifest.name, bundle.manifest.architecture) == (
        "timm-test_convnext",
        "timm:test_convnext.r160_in1k",
    )
    assert open_or_create("timm:test_convnext", weights="random").manifest == bundle.manifest
    assert open_or_create("timm-test_convnext", weights=None).manifest == bundle.manifest
    assert (
        "--model timm:test_convnext.r160_in1k --weights random" in bundle.manifest.files["weights.safetensors"].made_by
    )


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights without a classifier in the cache of the hub's client, as of an earlier download."""
    name = "vit_small_patch14_dinov2.lvd142m"
    cache = tmp_path / f"models--timm--{name}"
    (cache / "snapshots" / "1").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("1")
    module = timm.create_model(name, num_classes=0)
    safetensors.torch.save_file(module.state_dict(), cache / "snapshots" / "1" / hub.FILE)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "get_session", pytest.fail)
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "bundles"))


@pytest.mark.usefixtures("published")
def test_published_features_get_a_head() -> None:
    network = architecture("timm:vit_small_patch14_dinov2")

    begun = start(network, "pretrained", classes=3, size=56, seed=0)

    assert begun.module.eval()(torch.zeros(1, 3, 56, 56)).shape == (1, 3)
    assert begun.pretrained
    with pytest.raises(HalftoneError, match=r"are for features, without a classifier: train a head .* in1k"):
        open_or_create("timm:vit_small_patch14_dinov2", weights=None)


def test_a_network_without_published_weights() -> None:
    with pytest.raises(HalftoneError, match=r"timm has no weights of timm:mixer_s32_224.untrained: .*--weights random"):
        start(architecture("timm:mixer_s32_224"), "pretrained", classes=3, size=224, seed=0)


def test_random_weights_start_with_nearly_equal_probabilities() -> None:
    module = start(architecture("timm:levit_128s"), "random", classes=4, size=224, seed=0).module

    with torch.inference_mode():
        assert float(module(torch.randn(2, 3, 224, 224)).softmax(1).max()) < 0.5


def test_a_size_that_the_network_does_not_take() -> None:
    network = architecture("timm:levit_128s")

    with pytest.raises(HalftoneError, match=r"does not support an input of 96 x 96 pixels .*use its own size 224"):
        fit_input_size(build(network, classes=2), network, 96)


def test_an_option_that_the_network_does_not_have() -> None:
    network = architecture("timm:densenet121")

    assert build(network, classes=2, drop_path_rate=0.0)
    with pytest.raises(HalftoneError, match=r"has no drop_path_rate: give --drop-path 0"):
        build(network, classes=2, drop_path_rate=0.1)
