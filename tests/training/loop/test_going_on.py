"""Training that goes on from a bundle, with further pictures of a table, and its comparison with that bundle."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from models.bundle.bundle import WEIGHTS, Bundle
from tests.commands import run
from tests.training.memory import CropPictures

FLAGS = ("--epochs", 1, "--batch", 8, "--workers", 0, "--log", "--size", 32, "--amp", "off", "--weights", "random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures in `photos`, further ones in `new`, a table of these, and a bundle `first`."""
    root = tmp_path_factory.mktemp("going-on")
    for part, count, seed in (("train", 24, 1), ("val", 8, 2), ("new", 6, 3)):
        pictures = CropPictures(count, classes=2, seed=seed)
        for index in range(count):
            label = pictures.labels[pictures.targets[index]]
            path = root / ("new" if part == "new" else f"photos/{part}/{label}") / f"{label}-{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures.read(index)).save(path)
    label = CropPictures(2, classes=2).labels[0]
    # A copy of a validation picture, in another size and compressed.
    with Image.open(root / "photos" / "val" / label / f"{label}-0.png") as picture:
        picture.resize((80, 80)).save(root / "new" / f"{label}-copy.jpg", quality=90)
    with (root / "labels.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("path", "label", "split", "annotator", "agreement"))
        for path in sorted((root / "new").iterdir()):
            writer.writerow((f"new/{path.name}", path.name.rpartition("-")[0], "train", "ada", 1.0))
    train(root, "first", "--model", "mobilenetv3_small", *FLAGS)
    return root


def train(root: Path, name: str, *flags: object) -> str:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(root / "artifacts")}
    arguments = ("--data", root / "photos", "--output", root / "artifacts" / name, *flags)
    result = run("training", *arguments, env=environment)
    assert result.returncode == 0, result.stderr
    return " ".join((result.stdout + result.stderr).split())


def refused(root: Path, *flags: object, data: Path | None = None) -> str:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(root / "artifacts")}
    arguments = ("--data", data or root / "photos", "--output", root / "artifacts" / "refused", *flags)
    result = run("training", *arguments, env=environment)
    assert result.returncode == 2, result.stdout
    return result.stderr


def test_training_goes_on_from_a_bundle_with_pictures_that_no_held_out_part_has(folder: Path) -> None:
    said = train(folder, "second", "--from", "first", "--add", folder / "labels.csv", "--freeze", "head", *FLAGS[:-4])
    first, second = (Bundle.open(folder / "artifacts" / name) for name in ("first", "second"))
    label = first.manifest.labels[0]

    assert "1 added pictures are left out" in said
    assert f"new/{label}-copy.jpg = validation picture {label}/{label}-0.png" in said
    assert "against first on the same 8 validation pictures" in said
    training = second.manifest.training
    assert training["from_version"] == first.manifest.version
    assert training["added"]["pictures"] == 6
    assert second.manifest.input == first.manifest.input
    # The head alone was trained, from where it was.
    before, after = (safetensors.torch.load(bundle.read(WEIGHTS)) for bundle in (first, second))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}

    against = training["metrics"]["against"]
    assert against["before"]["value"] == first.manifest.training["metrics"]["val_top1"]
    assert against["now"]["value"] == training["metrics"]["val_top1"]
    assert against["added"]["pictures"] == 6
    assert "Before and after" in second.read("report/index.html").decode()
    rows = list(csv.DictReader(second.read("report/added.csv").decode().splitlines()))
    assert against["added"]["right_now"] == sum(row["label"] == row["now"] for row in rows)
    assert {row["path"] for row in rows} == {
        f"new/{path.name}" for path in (folder / "new").iterdir() if "copy" not in path.name
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("new/{0}-0.png", "bird", "train"), "the data has no class 'bird'"),
        (("new/{0}-0.png", "{0}", "val"), "added pictures are for training only"),
        (("new/{0}-copy.jpg", "{0}", "train"), "the held-out parts of the data have every picture of it"),
        (("new/none.png", "{0}", "train"), "lists 1 files that do not exist"),
    ],
)
def test_a_table_that_can_not_be_added_is_refused(
    folder: Path, tmp_path: Path, row: tuple[str, ...], message: str
) -> None:
    label = CropPictures(2, classes=2).labels[0]
    path = folder / f"{tmp_path.name}.csv"
    path.write_text("path,label,split\n" + ",".join(row).format(label) + "\n")

    assert message in refused(folder, "--model", "mobilenetv3_small", "--add", path, *FLAGS)


def test_what_contradicts_the_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "is a mobilenetv3_small, not a resnet18" in refused(folder, "--from", "first", "--model", "resnet18")
    assert "omit --weights, or --from" in refused(folder, "--from", "first", "--weights", "random")
    assert "there is no bundle" in refused(folder, "--from", "firs")
    assert "no such file" in refused(folder, "--from", "first", "--add", tmp_path / "none.csv")
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / part / label / f"{part}{index}.png")
    assert "begin with a new head: --model mobilenetv3_small --weights" in refused(
        folder, "--from", "first", data=tmp_path
    )
