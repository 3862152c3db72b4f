"""Folders that were not written by `export.push`: pulled if they fit, refused in one line if they do not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from export.exchange.hf_read import pull_folder
from export.exchange.hf_write import push_folder
from export.pull import PullConfig, pull
from models.bundle.errors import BundleError
from models.checkpoint import imagenet_ids, imagenet_labels, load_module
from models.common.errors import HalftoneError
from tests.export.trained import trained_bundle

NAMES = ["ant", "bee", "cow"]


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(5)
    return timm.create_model("mobilenetv3_small_100.lamb_in1k", pretrained=False, num_classes=3).eval()


@pytest.fixture
def saved(network: torch.nn.Module, tmp_path: Path) -> Path:
    """A folder that timm wrote."""
    save_for_hf(network, str(tmp_path / "saved"), {"label_names": NAMES}, safe_serialization=True)
    return tmp_path / "saved"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def refused(folder: Path, home: Path, words: str, labels: Path | None = None) -> None:
    """Check that the pull fails with these words in one line and leaves nothing."""
    with pytest.raises(HalftoneError, match=words) as caught:
        pull_folder(folder, home / "pulled", labels)
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_timms_own_folder(network: torch.nn.Module, saved: Path, home: Path) -> None:
    bundle = pull_folder(saved, home / "pulled")

    planes = torch.randn(2, 3, 224, 224)
    manifest = bundle.manifest
    with torch.inference_mode():
        assert torch.equal(load_module(bundle)(planes), network(planes))
    assert (manifest.architecture, manifest.labels, manifest.label_ids) == ("mobilenetv3_small", tuple(NAMES), ())
    assert (manifest.input.size, manifest.input.crop_fraction, manifest.input.interpolation) == (224, 0.875, "bicubic")
    assert (manifest.trained, manifest.temperature, manifest.license) == (True, 1.0, "apache-2.0")
    assert manifest.source == "the folder saved that timm wrote"


def test_a_transformer_at_another_size(home: Path, tmp_path: Path) -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=96).eval()
    save_for_hf(module, str(tmp_path / "saved"), {"label_names": NAMES}, safe_serialization=True)
    planes = torch.randn(2, 3, 96, 96)

    bundle = pull_folder(tmp_path / "saved", home / "pulled")

    assert bundle.manifest.input.size == 96
    with torch.inference_mode():
        torch.testing.assert_close(load_module(bundle)(planes), module(planes))


def test_imagenet_without_names_is_imagenet(home: Path, tmp_path: Path) -> None:
    save_for_hf(timm.create_model("mobilenetv3_small_100"), str(tmp_path / "saved"), safe_serialization=True)

    manifest = pull_folder(tmp_path / "saved", home / "pulled").manifest

    assert (manifest.labels, manifest.label_ids) == (imagenet_labels(), imagenet_ids())


def test_ids_with_descriptions(saved: Path, home: Path) -> None:
    edit(
        saved, lambda c: c.update(label_names=["n1", "n2", "n3"], label_descriptions={"n1": "a", "n2": "b", "n3": "c"})
    )

    manifest = pull_folder(saved, home / "pulled").manifest

    assert (manifest.labels, manifest.label_ids) == (("a", "b", "c"), ("n1", "n2", "n3"))


def test_equal_descriptions_do_not_name_classes(saved: Path, home: Path) -> None:
    edit(saved, lambda c: c.update(label_descriptions=dict.fromkeys(NAMES, "insect")))

    assert pull_folder(saved, home / "pulled").manifest.labels == tuple(NAMES)


def test_names_by_index(saved: Path, home: Path) -> None:
    edit(saved, lambda c: c.update(label_names={"2": "cow", "0": "ant", "1": "bee"}))

    assert pull_folder(saved, home / "pulled").manifest.labels == tuple(NAMES)


def test_names_from_a_file(saved: Path, home: Path, tmp_path: Path) -> None:
    edit(saved, lambda c: c.pop("label_names"))
    (tmp_path / "names.txt").write_text("rot\ngrün\nblau\n", encoding="utf-8")

    assert pull_folder(saved, home / "pulled", tmp_path / "names.txt").manifest.labels == ("rot", "grün", "blau")


def test_names_from_a_file_are_compared_with_those_of_the_folder(saved: Path, home: Path, tmp_path: Path) -> None:
    assert NAMES == ["ant", "bee", "cow"]
    names = tmp_path / "names.txt"
    for wrong in ("bee\nant\ncow\n", "Fliege\nAnt\nKuh\n"):
        names.write_text(wrong)
        refused(saved, home, r"names\.txt names output \d '.*' at output \d and .*omit --labels, or put", names)

    names.write_text("Ant\nBiene\nKuh\n")

    assert pull_folder(saved, home / "pulled", names).manifest.labels == ("Ant", "Biene", "Kuh")


def test_half_precision_weights_become_single(network: torch.nn.Module, saved: Path, home: Path) -> None:
    halves = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    safetensors.torch.save_file(halves, saved / "model.safetensors")

    state = load_module(pull_folder(saved, home / "pulled")).state_dict()

    assert torch.equal(state["classifier.weight"], network.state_dict()["classifier.weight"].half().float())


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("label_names"), r"names none of its 3 classes: give a file .* with --labels FILE"),
        (lambda c: c.update(label_names=["ant"]), r"1 class names for 3 outputs"),
        (lambda c: c.update(label_names=["ant", "ant", "cow"]), "must be distinct"),
        (lambda c: c.update(label_names={"0": "ant", "2": "cow"}), "label_names has gaps"),
        (lambda c: c.update(architecture="convnext_tinny"), r"timm's architecture 'convnext_tinny': .*convnext_tiny"),
        (lambda c: c.update(architecture="resnet50"), "do not fit the network"),
        (lambda c: c.pop("pretrained_cfg"), "not a configuration of timm "),
        (
            lambda c: c["model_args"].update(global_pool="max"),
            "builds the network with global_pool='max', .* has 'avg'",
        ),
        (lambda c: c["model_args"].update(act_layer="gelu"), "builds the network with act_layer='gelu'"),
        (lambda c: c["model_args"].update(in_chans=1), "builds the network with in_chans=1"),
        (lambda c: c.update(global_pool="max"), "builds the network with global_pool='max'"),
        (lambda c: c["pretrained_cfg"].update(input_size=[1, 224, 224]), "input_size is"),
        (lambda c: c["pretrained_cfg"].update(input_size=[3, 224, 192]), "input_size is"),
        (lambda c: c["pretrained_cfg"].update(crop_mode="squash"), "crop_mode is 'squash'"),
        (lambda c: c["pretrained_cfg"].update(interpolation="lanczos"), "interpolation must be one of"),
        (lambda c: c["pretrained_cfg"].update(crop_pct=0), "crop fraction must lie in"),
        (lambda c: c["pretrained_cfg"].update(crop_pct="big"), "not an input specification"),
        (lambda c: c["pretrained_cfg"].update(std=[0.5, 0.5]), "std must be three"),
        (lambda c: c["pretrained_cfg"].update(mean=None), "not an input specification"),
        (lambda c: c.update(halftone=[]), "is not an object"),
        (lambda c: c.update(halftone={"temperature": 1}), "push the bundle again, or remove the section"),
    ],
)
def test_a_configuration_that_does_not_fit(change: Edit, words: str, saved: Path, home: Path) -> None:
    edit(saved, change)

    refused(saved, home, words)


def test_training_arguments_are_no_matter(saved: Path, home: Path) -> None:
    edit(saved, lambda c: c["model_args"].update(drop_rate=0.2, drop_path_rate=0.1))

    pull_folder(saved, home / "pulled")

    assert (home / "pulled" / "weights.safetensors").exists()


def test_pickles_are_never_opened(network: torch.nn.Module, home: Path, tmp_path: Path) -> None:
    save_for_hf(network, str(tmp_path / "saved"), {"label_names": NAMES}, safe_serialization=False)
    assert (tmp_path / "saved" / "pytorch_model.bin").exists()

    refused(tmp_path / "saved", home, r"no model\.safetensors in it; .*pickles.*safe_serialization=True")


def test_a_pickle_under_the_name_of_safetensors(network: torch.nn.Module, saved: Path, home: Path) -> None:
    torch.save(network.state_dict(), saved / "model.safetensors")

    refused(saved, home, "is not a whole safetensors file")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_weights_cut_short(saved: Path, home: Path, keep: int) -> None:
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[:keep])

    refused(saved, home, r"is not a whole safetensors file .*: copy or save it again")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("classifier.bias"), r"do not fit the network.*missing: classifier\."),
        (lambda state: state.update(extra=torch.zeros(1)), "do not fit the network.*extra"),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(4)}),
            r"do not fit the network.*classifier\.bias",
        ),
        (
            lambda state: state.update({"classifier.bias": torch.zeros(3, dtype=torch.int8)}),
            r"classifier\.bias is torch\.int8",
        ),
    ],
)
def test_weights_of_another_network(
    change: Callable[[dict[str, torch.Tensor]], object],
    words: str,
    network: torch.nn.Module,
    saved: Path,
    home: Path,
) -> None:
    state = network.state_dict()
    change(state)
    safetensors.torch.save_file(state, saved / "model.safetensors")

    refused(saved, home, words)


def test_weights_exchanged_behind_the_description(home: Path, tmp_path: Path) -> None:
    push_folder(trained_bundle(tmp_path / "mine"), tmp_path / "pushed")
    state = safetensors.torch.load_file(tmp_path / "pushed" / "model.safetensors")
    safetensors.torch.save_file(
        {name: tensor + 1 for name, tensor in state.items()}, tmp_path / "pushed" / "model.safetensors"
    )

    refused(tmp_path / "pushed", home, r"other weights than config\.json describes .*remove the section 'halftone'")


@pytest.mark.parametrize(
    ("text", "words"), [(None, r"no config\.json in it"), ("{", "is not JSON"), ("[]", "not a conf")]
)
def test_no_configuration(text: str | None, words: str, home: Path, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)

    refused(tmp_path, home, words)


def test_a_file_of_names_that_is_missing_or_too_short(saved: Path, home: Path, tmp_path: Path) -> None:
    refused(saved, home, r"--labels .*names\.txt: no such file", tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("one\n")
    refused(saved, home, "1 class names for 3 outputs", tmp_path / "names.txt")


def test_a_file_of_names_with_a_control_character(saved: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("one\ntw\x1b[31mo\nthree\n")
    refused(
        saved,
        home,
        r"names\.txt has the class 'tw\\x1b\[31mo', which contains a control character",
        tmp_path / "names.txt",
    )


def test_a_name_that_is_taken_or_is_none(saved: Path, home: Path) -> None:
    pull(PullConfig(from_=str(saved), name="pulled"))

    for origin in (str(saved), "bentoml:mine"):
        with pytest.raises(HalftoneError, match="pulled exists already: remove it, or choose another name with --name"):
            pull(PullConfig(from_=origin, name="pulled"))
    with pytest.raises(HalftoneError, match="is not a model's name"):
        pull(PullConfig(from_=str(saved), name="../pulled"))
    assert [path.name for path in home.iterdir()] == ["pulled"]


def test_a_pull_that_fails_while_writing_leaves_nothing(
    saved: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise BundleError("the disk is full")

    monkeypatch.setattr("export.exchange.hf_read.model_card", full)

    refused(saved, home, "the disk is full")
