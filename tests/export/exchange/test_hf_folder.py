"""Push and pull of folders in Hugging Face layout: timm loads them, and a round trip loses nothing."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors import safe_open

import export.exchange.hf_write
from export.exchange.hf_read import pull_folder
from export.exchange.hf_write import push_folder
from export.variants import load
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import HashMismatchError
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.preprocess.transform import load as load_picture
from tests.export.exchange.conftest import Command
from tests.export.trained import LABELS, trained_bundle
from tests.servers import PHOTOS


def timms(folder: Path) -> torch.nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize(
    ("network", "size"),
    [("resnet18", 64), ("mobilenetv3_small", 96), ("vit_ti16", 96), ("pvt_v2_b0", 64)],
)
def test_timm_answers_with_the_same_logits(network: str, size: int, home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine", network, size)
    planes = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))

    push_folder(bundle, tmp_path / "pushed")

    with torch.inference_mode():
        assert torch.equal(timms(tmp_path / "pushed")(planes), load_module(bundle)(planes))
    assert sorted(path.name for path in (tmp_path / "pushed").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_timm_prepares_pictures_as_the_bundle_does(default: Bundle, tmp_path: Path) -> None:
    push_folder(default, tmp_path / "pushed")
    model = timms(tmp_path / "pushed")
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    photos = sorted(PHOTOS.glob("*.jpg"))
    spec = default.manifest.input

    planes = torch.stack([transform(Image.open(path).convert("RGB")) for path in photos])
    ours = load(default, "torch-fp32", threads=2).run(np.stack([load_picture(p.read_bytes(), spec) for p in photos]))

    with torch.inference_mode():
        theirs = model(planes).numpy()
    assert theirs.argmax(axis=1).tolist() == ours.argmax(axis=1).tolist()
    # Resizing differs by a rounding of one grey level, normalisation not at all.
    assert np.abs(theirs - ours).mean() < 0.05


def test_what_comes_back_is_what_was_pushed(home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine")
    push_folder(bundle, tmp_path / "pushed")

    again = pull_folder(tmp_path / "pushed", home / "again")

    before, after = bundle.manifest, again.manifest
    assert again.folder == home / "again"
    assert again.read(WEIGHTS) == bundle.read(WEIGHTS)
    for name in (
        "architecture",
        "input",
        "labels",
        "label_ids",
        "trained",
        "source",
        "license",
        "training",
        "temperature",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert (after.name, after.version) == ("again", before.version)
    assert b"again" in again.read("README.md")
    assert Bundle.open(again.folder).manifest == after


def test_the_default_comes_back_too(default: Bundle, home: Path, tmp_path: Path) -> None:
    push_folder(default, tmp_path / "pushed")

    again = pull_folder(tmp_path / "pushed", home / "again")

    assert again.manifest.version == default.manifest.version
    assert (again.manifest.labels, again.manifest.label_ids) == (default.manifest.labels, default.manifest.label_ids)


def test_the_folder_explains_itself(home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine")

    push_folder(bundle, tmp_path / "pushed")

    config = json.loads((tmp_path / "pushed" / "config.json").read_text())
    assert config["architecture"] == "mobilenetv3_small_100"
    assert (config["num_classes"], tuple(config["label_names"])) == (5, LABELS)
    settings = config["pretrained_cfg"]
    assert (settings["input_size"], settings["interpolation"], settings["crop_pct"]) == ([3, 64, 64], "bilinear", 0.9)
    assert (settings["mean"], settings["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (settings["license"], settings["num_classes"]) == ("bsd-3-clause", 5)
    _, front, text = (tmp_path / "pushed" / "README.md").read_text().split("---\n", maxsplit=2)
    card = yaml.safe_load(front)
    assert (card["pipeline_tag"], card["library_name"]) == ("image-classification", "timm")
    assert (card["license"], card["tags"]) == ("bsd-3-clause", ["image-classification", "halftone"])
    assert 'timm.create_model("local-dir:FOLDER", pretrained=True)' in text
    with safe_open(tmp_path / "pushed" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(load_module(bundle).state_dict())


def test_untrained_weights_stay_marked(home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine")
    bundle.manifest = type(bundle.manifest)(**{**vars(bundle.manifest), "trained": False})

    push_folder(bundle, tmp_path / "pushed")

    assert "**Untrained**" in (tmp_path / "pushed" / "README.md").read_text()
    assert not pull_folder(tmp_path / "pushed", home / "again").manifest.trained


def test_a_folder_that_holds_something_is_left_alone(home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")

    with pytest.raises(HalftoneError, match=r"taken is not empty: remove it, or choose another place with --to"):
        push_folder(bundle, taken)

    assert [path.name for path in taken.iterdir()] == ["notes.txt"]


def test_an_empty_folder_will_do(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    push_folder(trained_bundle(home / "mine"), tmp_path / "empty")

    assert (tmp_path / "empty" / "config.json").exists()


def test_a_failed_push_leaves_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = trained_bundle(home / "mine")
    other = load_module(bundle)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    # A version of timm that rebuilds something else from the same folder.
    stub = SimpleNamespace(create_model=lambda *_, **__: other, __version__="9.9")
    monkeypatch.setattr(export.exchange.hf_write, "timm", stub)

    with pytest.raises(HalftoneError, match="rebuilds another network from the folder than the bundle holds"):
        push_folder(bundle, tmp_path / "deep" / "pushed")

    assert list((tmp_path / "deep").iterdir()) == []


def test_damaged_weights_are_not_pushed(home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine")
    with bundle.locate(WEIGHTS).open("ab") as file:
        file.write(b"\0")

    with pytest.raises(HashMismatchError):
        push_folder(bundle, tmp_path / "pushed")

    assert not (tmp_path / "pushed").exists()


def test_the_commands(home: Path, tmp_path: Path, command: Command) -> None:
    trained_bundle(home / "mine")
    pushed = tmp_path / "pushed"

    there = command("export.push", "--model", "mine", "--to", pushed)
    back = command("export.pull", "--from", pushed, "--name", "again")
    twice = command("export.pull", "--from", pushed, "--name", "again")

    assert (there.returncode, there.stderr) == (0, "")
    assert f'timm.create_model("local-dir:{pushed}", pretrained=True)' in there.stdout
    assert (back.returncode, back.stderr) == (0, "")
    assert "mobilenetv3_small, 5 classes" in back.stdout
    assert "`python -m export --model again`" in back.stdout
    assert (twice.returncode, twice.stdout, twice.stderr.count("\n")) == (2, "", 1)
    assert "again exists already: remove it, or choose another name with --name" in twice.stderr
    assert sorted(path.name for path in home.iterdir()) == ["again", "mine"]
