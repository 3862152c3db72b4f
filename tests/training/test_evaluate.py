import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.progress import Progress

from models.bundle import Bundle
from models.catalog import architecture
from models.checkpoint import build, load_module, save_weights
from models.errors import HalftoneError
from models.graph import ServingGraph
from models.manifest import Manifest
from models.measures import softmax
from models.preprocess import fit
from models.spec import InputSpec
from tests.training.samples import class_folders
from training.data.source import load_data
from training.evaluate import EvaluateConfig, evaluate

SPEC = InputSpec(size=32)


def make_bundle(
    folder: Path, name: str, *, labels=("cat", "dog", "emu"), seed=0, training=None, temperature=1.0
) -> Bundle:
    torch.manual_seed(seed)
    module = build(architecture("mobilenetv3_small"), classes=len(labels))
    manifest = Manifest(
        name=name, architecture="mobilenetv3_small", input=SPEC, labels=labels, trained=True, source="a test",
        license="apache-2.0", training=training or {}, temperature=temperature,
    )  # fmt: skip
    with Bundle.creating(folder / name, manifest) as bundle:
        save_weights(bundle, module, made_by="a test")
    return bundle


@pytest.fixture
def artifacts(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "artifacts"))
    return tmp_path / "artifacts"


@pytest.fixture
def photos(tmp_path) -> Path:
    class_folders(tmp_path / "photos" / "train", {"cat": 2, "dog": 2, "emu": 2})
    class_folders(tmp_path / "photos" / "val", {"cat": 4, "dog": 4, "emu": 4}, first_seed=50)
    return tmp_path / "photos"


@pytest.fixture
def undivided(tmp_path) -> Path:
    return class_folders(tmp_path / "undivided", {"cat": 10, "dog": 10, "emu": 10})


def judged(*names: str, data: Path, **options) -> dict:
    config = EvaluateConfig(model=names, data=str(data), workers=0, device="cpu", **options)
    with Progress(disable=True) as progress:
        return evaluate(config, progress)


def reference(bundle: Bundle, pictures, order=None) -> np.ndarray:
    pixels = np.stack([fit(pictures.read(index), SPEC) for index in range(len(pictures))])
    graph = ServingGraph(load_module(bundle), SPEC).eval()
    with torch.inference_mode():
        logits = graph(torch.from_numpy(pixels)).numpy()
    return softmax(logits if order is None else logits[:, order], bundle.manifest.temperature)


def test_one_model(artifacts, photos, tmp_path):
    bundle = make_bundle(artifacts, "one", temperature=2.0)
    result = judged("one", data=photos)
    val = load_data(str(photos)).val
    expected = (reference(bundle, val).argmax(axis=1) == val.targets).mean()
    assert (result["pictures"], result["part"]) == (12, "the held-out part of the data")
    assert result["models"]["one"]["top1"]["value"] == pytest.approx(expected)
    assert result["models"]["one"]["top5"]["value"] == 1
    assert "ensemble" not in result


def test_an_ensemble_averages_probabilities_class_by_class(artifacts, photos):
    one = make_bundle(artifacts, "one", seed=1, temperature=0.01)
    two = make_bundle(artifacts, "two", labels=("emu", "cat", "dog"), seed=2, temperature=0.02)
    result = judged("one", "two", data=photos)
    val = load_data(str(photos)).val
    mean = (reference(one, val) + reference(two, val, order=[1, 2, 0])) / 2
    assert result["ensemble"]["top1"]["value"] == pytest.approx((mean.argmax(axis=1) == val.targets).mean())
    true = mean[np.arange(len(val)), val.targets]
    assert result["ensemble"]["nll"] == pytest.approx(-np.log(np.maximum(true, 1e-300)).mean(), rel=1e-3)
    best = result["ensemble"]["against_best_member"]
    assert best["model"] in ("one", "two")
    assert 0 <= best["mcnemar_p"] <= 1


def test_the_data_may_know_fewer_classes_than_the_model_or_its_ids(artifacts, tmp_path):
    make_bundle(artifacts, "wide", labels=("zebra", "emu", "dog", "cat"))
    data = class_folders(tmp_path / "fewer", {"cat": 3, "dog": 3})
    result = judged("wide", data=data)
    entries = {entry["label"]: entry["images"] for entry in result["models"]["wide"]["classes"]}
    assert entries == {"zebra": 0, "emu": 0, "dog": 3, "cat": 3}


def test_data_of_an_untrained_model_is_judged_whole(artifacts, undivided):
    make_bundle(artifacts, "one")
    assert judged("one", data=undivided)["pictures"] == 30
    assert judged("one", data=undivided, part="val")["pictures"] == 6


def trained_on(location: Path, **how) -> dict:
    data = load_data(str(location), **how)
    return {"config": how, "data": {"fingerprint": data.fingerprint()}}


def test_a_model_is_not_judged_by_what_it_learnt(artifacts, undivided):
    make_bundle(artifacts, "one", training=trained_on(undivided, val_share=0.3, seed=5, limit=None))
    result = judged("one", data=undivided)
    assert (result["pictures"], result["part"]) == (9, "the pictures that training held out")


def test_models_that_learnt_each_other_s_pictures_are_not_compared(artifacts, undivided):
    for seed, name in enumerate(("one", "two")):
        make_bundle(artifacts, name, training=trained_on(undivided, val_share=0.3, seed=seed, limit=None))
    with pytest.raises(HalftoneError, match="trained on different splits"):
        judged("one", "two", data=undivided)
    assert judged("one", "two", data=undivided, part="all")["pictures"] == 30


def test_broken_pictures_are_left_out_and_named(artifacts, photos):
    make_bundle(artifacts, "one")
    (photos / "val" / "dog" / "001.png").write_bytes(b"no picture")
    result = judged("one", data=photos)
    assert (result["pictures"], result["unreadable"]) == (11, ["dog/001.png"])
    (photos / "val" / "dog" / "002.png").write_bytes(b"no picture")
    with pytest.raises(HalftoneError, match="2 of 12 pictures can't be read"):
        judged("one", data=photos)


def test_classes_that_the_model_does_not_know(artifacts, photos):
    make_bundle(artifacts, "one", labels=("cat", "dog"))
    with pytest.raises(HalftoneError, match="the class 'emu', which one does not know"):
        judged("one", data=photos)


def test_models_of_different_classes(artifacts, photos):
    make_bundle(artifacts, "one")
    make_bundle(artifacts, "two", labels=("cat", "dog"))
    with pytest.raises(HalftoneError, match="one and two know different classes"):
        judged("one", "two", data=photos)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ()}, "--model is missing"),
        ({"model": ("a", "a")}, "given twice"),
        ({"model": ("a",), "batch": 0}, "--batch"),
        ({"model": ("a",), "workers": -1}, "--workers"),
        ({"model": ("a",), "max_corrupt_share": 2.0}, "--max-corrupt-share"),
    ],
)
def test_unusable_requests(options, message):
    with pytest.raises(HalftoneError, match=message):
        EvaluateConfig(data="photos", **options)


def test_the_command_writes_json_and_a_report(artifacts, photos, tmp_path):
    make_bundle(artifacts, "one", seed=1)
    make_bundle(artifacts, "two", seed=2)
    output, report = tmp_path / "both.json", tmp_path / "report"
    command = [sys.executable, "-m", "training.evaluate", "--model", "one", "--model", "two", "--data", str(photos)]
    result = subprocess.run(
        [*command, "--output", str(output), "--report", str(report)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "ensemble" in result.stdout
    assert set(json.loads(output.read_text())["models"]) == {"one", "two"}
    assert "one + two" in (report / "index.html").read_text()


def test_the_help_says_who_judges_exported_variants():
    command = [sys.executable, "-m", "training.evaluate", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "python -m export.parity" in " ".join(result.stdout.split())
