"""Bundles joined into one: its graph answers with the mean of its members' probabilities, also over HTTP."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import timm
import torch
import yaml
from PIL import Image
from rich.progress import Progress

from export.ensemble import EnsembleConfig, join, joint_input, mean_logits
from export.onnx.export import export_onnx
from export.onnx.metadata import WEIGHTED, end_layers, layers, normalisation, resampling
from export.parity.gate import Gate
from export.variants import load
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.card import CARD
from models.bundle.manifest import Member
from models.common.novelty import familiarity
from models.common.statistics import softmax
from models.dataset import TRAINING_PICTURES, training_digests
from models.graph import Ensemble, ServingGraph
from models.preprocess.transform import load as load_picture
from models.spec import InputSpec
from tests.commands import run
from tests.export.trained import LABELS, trained_bundle
from tests.samples import edit_manifest
from tests.servers import PHOTOS, QUICK, Server, serve

TURNED = LABELS[::-1]


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Build members with half the blocks: both are traced for each graph of an ensemble."""
    create_model = timm.create_model

    def with_few_blocks(name: str, **options: Any) -> torch.nn.Module:
        return create_model(name, **options | ({"layers": (1, 1, 1, 1)} if name.startswith("resnet18") else {}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", with_few_blocks)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Members of two sizes and crops, with their classes in another order; the ensemble `both` in FP32, proved."""
    root = tmp_path_factory.mktemp("ensemble")
    for name, size, seen in (("small", 32, (7, 9)), ("large", 48, (9, 11))):
        bundle = trained_bundle(root / name, "resnet18", size)
        digests = np.array(seen, dtype="<u8").tobytes()
        bundle.write(TRAINING_PICTURES, digests, made_by="a test", made_from=[WEIGHTS])
    edit_manifest(root / "large", lambda values: values.update(labels=list(TURNED)))
    edit_manifest(root / "large", lambda values: values["input"].update(crop_fraction=0.8))
    result = command(root, "export.ensemble", "--models", "small,large", "--name", "both", "--json")
    assert json.loads(result)["comparison"]["verdict"] == "PASSED"
    export_onnx(Bundle.open(root / "both"), "fp32")
    command(root, "export.parity", "--model", "both", "--variant", "onnxruntime-fp32")
    return root


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(folder, tmp_path_factory.mktemp("server") / "log", HALFTONE_MODEL="both", **QUICK) as running:
        yield running


def command(root: Path, module: str, *arguments: str, code: int = 0) -> str:
    result = run(module, *arguments, env=os.environ | {"HALFTONE_ARTIFACTS": str(root)})
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout if code == 0 else result.stderr


def mean_of_members(root: Path, picture: Path) -> npt.NDArray[np.float64]:
    """Return the mean of the members' probabilities, each by its own preprocessing, in the order of `LABELS`."""
    found = []
    for name in ("small", "large"):
        bundle = Bundle.open(root / name)
        pixels = load_picture(picture.read_bytes(), bundle.manifest.input)
        (own,) = softmax(load(bundle, "torch-fp32", threads=1).run(pixels[None]), bundle.manifest.temperature)
        found.append([own[bundle.manifest.labels.index(label)] for label in LABELS])
    return np.mean(found, axis=0)


def test_the_service_answers_with_the_mean_of_the_members(folder: Path, server: Server, tmp_path: Path) -> None:
    # Square, as half a pixel that the members' crops are rounded by changes what random networks answer.
    Image.open(PHOTOS / "cat.jpg").crop((0, 0, 280, 280)).save(tmp_path / "square.png")
    answer = server.post("/classify?top_k=5", files={"image": (tmp_path / "square.png").read_bytes()})
    served = {each["label"]: each["probability"] for each in answer.json()["predictions"]}

    expected = mean_of_members(folder, tmp_path / "square.png").tolist()

    assert [served[label] for label in LABELS] == pytest.approx(expected, abs=0.02)


def test_members_of_one_input_are_averaged_exactly() -> None:
    torch.manual_seed(0)
    spec = InputSpec(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    own = replace(spec, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    networks = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)) for _ in range(2)]
    members = [
        Member(name="a", version="1", architecture="x", input=own, temperature=0.5, order=(2, 0, 1)),
        Member(name="b", version="1", architecture="x", input=own, temperature=2.0),
    ]
    pixels = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)

    with torch.inference_mode():
        logits = ServingGraph(Ensemble(networks, members, spec), spec)(pixels).numpy()
        answers = [ServingGraph(network, own)(pixels).numpy() for network in networks]

    mean = (softmax(answers[0], 0.5)[:, [2, 0, 1]] + softmax(answers[1], 2.0)) / 2
    assert softmax(logits, 1.0) == pytest.approx(mean, abs=1e-6)
    # What serving notices unfamiliar images by.
    assert familiarity(logits) == pytest.approx((familiarity(answers[0]) + familiarity(answers[1])) / 2, abs=1e-5)
    assert mean_logits(answers, members) == pytest.approx(logits, abs=1e-4)


def test_the_bundle_says_of_which_members_it_is_made(folder: Path) -> None:
    bundle = Bundle.open(folder / "both")
    text = bundle.read(CARD).decode()

    assert [member.name for member in bundle.manifest.members] == ["small", "large"]
    assert bundle.manifest.labels == LABELS
    assert bundle.manifest.temperature == 1
    assert "mean of the calibrated probabilities of `small` (resnet18, 32 px" in text
    assert "gives its members' mean answer" in text
    assert yaml.safe_load(text.split("---")[1])["base_model"] == ["timm/resnet18.a1_in1k"]
    digests = training_digests(bundle)
    assert digests is not None
    assert digests.tolist() == [7, 9, 11]
    assert bundle.manifest.version != Bundle.open(folder / "small").manifest.version


def test_it_is_evaluated_as_its_members_are_together(folder: Path, tmp_path: Path) -> None:
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    for number in range(10):
        place = tmp_path / "data" / f"n{number % len(LABELS)}"
        place.mkdir(parents=True, exist_ok=True)
        photos[number % len(photos)].crop((20 * number, 0, 20 * number + 96, 96)).save(place / f"{number}.png")

    def evaluated(*models: str) -> Any:
        names = [word for model in models for word in ("--model", model)]
        output = str(tmp_path / "result.json")
        more = ("--data", str(tmp_path / "data"), "--workers", "0", "--device", "cpu", "--output", output, "--json")
        return json.loads(command(folder, "training.evaluate", *names, *more))

    joined, together = evaluated("both")["models"]["both"], evaluated("small", "large")["ensemble"]

    assert joined["nll"] == pytest.approx(together["nll"], abs=0.05)
    assert joined["classes"][0]["images"] == 2


def test_every_member_has_a_first_and_a_last_layer(folder: Path) -> None:
    graph = onnx.load_from_string(Bundle.open(folder / "both").read("model.fp32.onnx"))
    kinds = {node.name: node.op_type for node in graph.graph.node}

    ends = end_layers(graph)

    assert [kinds[name] for name in ends] == ["Conv", "Gemm", "Conv", "Gemm"]
    assert len(resampling(graph)) == 4
    assert {name for layer in layers(graph) for name in layer}.isdisjoint(resampling(graph))
    assert set(resampling(graph)) <= normalisation(graph)
    assert all(kinds[layer[0]] in WEIGHTED for layer in layers(graph))


def test_an_ensemble_that_answers_otherwise_is_not_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(folder))
    monkeypatch.setattr("export.ensemble.RESAMPLED", Gate(max_mean_kl=0))
    members = [Bundle.open(folder / name) for name in ("small", "large")]

    with Progress(disable=True) as progress:
        bundle, comparison = join(EnsembleConfig(models="small,large", name="new"), members, progress)

    assert bundle is None
    assert comparison["verdict"] == "FAILED"
    assert comparison["reasons"][0].startswith("mean KL divergence")
    assert list(folder.glob("*new*")) == []


def test_the_input_holds_the_view_of_every_member() -> None:
    narrow = InputSpec(size=240, crop_fraction=0.5)
    wide = InputSpec(size=100, crop_fraction=1.0, interpolation="bilinear")

    spec = joint_input([narrow, wide])

    assert (spec.size, spec.crop_fraction, spec.interpolation) == (480, 1.0, "bicubic")
    assert joint_input([wide, wide]).window == wide.window


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--models", "small", "--name", "new"), "names one bundle: name two or more"),
        (("--models", "small,small", "--name", "new"), "names small twice"),
        (("--models", "small,large", "--name", "small"), "is a member: choose another name"),
        (("--models", "small,large", "--name", "both"), "holds a bundle already"),
        (("--models", "small,both", "--name", "new"), "both is an ensemble itself: name its members (small,large)"),
        (("--models", "small,other", "--name", "new"), "small has the class 'T-shirt/top' and other does not"),
        (("--models", "small,none", "--name", "new"), "there is no bundle"),
    ],
)
def test_what_cannot_be_joined_is_refused(folder: Path, arguments: tuple[str, ...], complaint: str) -> None:
    if not (folder / "other").exists():
        trained_bundle(folder / "other", "mobilenetv3_small", 32)
        edit_manifest(folder / "other", lambda values: values.update(labels=[*LABELS[:-1], "hat"]))

    assert complaint in command(folder, "export.ensemble", *arguments, code=2)
    assert not (folder / "new").exists()


def test_an_ensemble_is_neither_pushed_as_one_network_nor_explained(folder: Path, tmp_path: Path) -> None:
    pushed = command(folder, "export.push", "--model", "both", "--to", str(tmp_path / "out"), code=2)
    image, output = str(PHOTOS / "cat.jpg"), str(tmp_path / "x.png")
    explained = command(folder, "export.explain", "--model", "both", "--image", image, "--output", output, code=2)

    assert "push its members (small, large)" in pushed
    assert "explain small or large" in explained
