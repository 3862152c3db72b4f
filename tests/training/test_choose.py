"""The choice of a network: budget first, then frozen features in folds, then runs; the test part last."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from export.benchmark import families
from models.bundle.bundle import Bundle
from models.catalog import architecture
from models.common.host import cores
from models.spec import EMBEDDED
from tests import commands
from tests.training.memory import CropPictures
from training.choose import finish, rungs, speed
from training.choose.rungs import affordable, finalists, in_words
from training.choose.speed import Budget, Speed

MEASURED = SimpleNamespace(variant="x-fp32", served_images_per_second=500, megabytes=9)
SERVED = {"milliseconds": 20.0, "images_per_second": 100.0, "megabytes": 18.0}
BROKEN = b"\x89PNG\r\n\x1a\n: reading this is noticed"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def write(folder: Path, pictures: CropPictures) -> None:
    for index in range(len(pictures)):
        file = folder / f"{pictures.name(index)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures.read(index)).save(file)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for part, count, seed in (("train", 48, 1), ("val", 24, 2), ("test", 12, 3)):
        write(folder / part, CropPictures(count, side=64, seed=seed))
    return folder


def remember(folder: Path, rates: dict[str, float], size: int = 64) -> None:
    """Write speeds as an earlier command has measured them."""
    speeds = {
        f"{name} {size}": vars(Speed(variant="x-fp32", milliseconds=2000 / rate, images_per_second=rate, megabytes=20))
        for name, rate in rates.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / speed.FILE_NAME).write_text(json.dumps({"here": speed._here(), "speeds": speeds}))


def chosen(photos: Path, output: Path, *arguments: object):
    return commands.run(
        "training.choose", "--data", photos, "--output", output, "--size", 64, "--device", "cpu", "--workers", 0,
        *arguments, env=ENVIRONMENT,
    )  # fmt: skip


def test_the_candidates_are_those_whose_weights_come_with_packages(photos, tmp_path):
    remember(tmp_path, dict.fromkeys(EMBEDDED, 100.0))

    result = chosen(photos, tmp_path / "photos", "--rate", 1000, "--json")

    document = json.loads(result.stdout)
    assert result.returncode == 1, result.stderr
    assert [(row["name"], row["verdict"]) for row in document["candidates"]] == [
        (name, "100 pictures/s, below --rate 1000") for name in EMBEDDED
    ]
    assert document["chosen"] is None
    assert "no candidate keeps the budget" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [speed.FILE_NAME]


def test_speeds_are_measured_once(tmp_path, monkeypatch):
    network, said = architecture("mobilenetv3_small"), []
    monkeypatch.setattr(families, "measure_network", lambda *_, **options: MEASURED)

    found = [speed.measured(network, 32, tmp_path, say=said.append) for _ in range(2)]
    (tmp_path / speed.FILE_NAME).write_text("damaged")
    again = speed.measured(network, 32, tmp_path, say=said.append)

    assert found == [again, again]
    assert said == 2 * ["measuring the served speed of mobilenetv3_small at 32 px"]
    assert (again.images_per_second, again.milliseconds, again.megabytes) == (500, 2 * cores(), 9)


@pytest.fixture
def quick(monkeypatch):
    """Empty drawings, and figures in the place of an export: `tests/export/test_pipeline.py` makes real ones."""
    monkeypatch.setattr(finish, "export_and_prove", lambda bundle, data: SERVED)
    draw = "matplotlib.figure.Figure.savefig"
    monkeypatch.setattr(draw, lambda figure, file, **options: file.write(b"drawing"))


@pytest.mark.usefixtures("quick")
@pytest.mark.timeout(900)
def test_a_choice_from_its_budget_to_the_bundle(photos, tmp_path):
    output, state = tmp_path / "photos", tmp_path / ".photos.choose" / "state.json"
    remember(tmp_path, {"efficientnet_lite0": 90.0, "efficientnet_lite1": 50.0, "efficientnet_lite2": 1.0})
    tested = {path: path.read_bytes() for path in (photos / "test").rglob("*.png")}
    for path in tested:
        path.write_bytes(BROKEN)

    first = chosen(photos, output, "--rate", 2)
    for path, content in tested.items():
        path.write_bytes(content)

    # All is done but the one reading of the test part.
    assert first.returncode == 2, first.stderr
    assert "of 12 pictures can't be read" in first.stderr
    assert {"screened", "rung 0", "epochs"} <= json.loads(state.read_text()).keys()
    other = chosen(photos, output, "--rate", 2, "--seed", 1)
    assert other.returncode == 2
    assert "holds an unfinished choice with other settings: repeat that command, or remove" in other.stderr

    second = chosen(photos, output, "--rate", 2, "--json")

    assert second.returncode == 0, second.stderr
    document = json.loads(second.stdout)
    assert ("screening" in first.stderr, "screening" in second.stderr) == (True, False)
    rows = {row["name"]: row for row in document["candidates"]}
    assert rows["efficientnet_lite2"]["verdict"] == "1 pictures/s, below --rate 2"
    assert rows["efficientnet_lite2"]["screened"] is None
    others = {"efficientnet_lite0", "efficientnet_lite1"}
    assert document["chosen"] in others
    assert {name for name, row in rows.items() if row["verdict"] == "chosen"} == {document["chosen"]}
    for name in others:
        assert 0 <= rows[name]["screened"]["low"] < rows[name]["screened"]["high"] <= 1
    assert any("training pictures, cross-validated (p = " in reason for reason in document["reasons"])
    assert document["accuracy"]["test_pictures"] == 12
    assert document["served"] == SERVED

    bundle = Bundle.open(output)
    assert (bundle.manifest.architecture, bundle.manifest.name) == (document["chosen"], "photos")
    assert json.loads(bundle.read("report/choice.json"))["reasons"] == document["reasons"]
    page = bundle.read("report/choice.html").decode()
    assert document["reasons"][1].partition(" (p = ")[0] in page
    assert bundle.has("report/choice.png")
    assert not state.parent.exists()

    again = chosen(photos, output, "--rate", 2)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"this choice is finished: {output} has its model; why: ")
    taken = chosen(photos, output, "--rate", 2, "--seed", 1)
    assert (taken.returncode, "is not empty: remove it to choose again" in taken.stderr) == (2, True)


def answers(right: int, of: int = 100) -> np.ndarray:
    return np.arange(of) < right


def test_candidates_that_are_not_worse_by_chance_are_trained():
    screened = {"a": answers(90), "b": answers(89), "c": answers(89), "d": answers(70), "e": answers(88)}

    assert finalists(screened, {"a": 1, "b": 2, "c": 3, "d": 9, "e": 1}.__getitem__) == ["a", "c", "b"]
    assert len(finalists(screened, lambda name: 1.0)) == rungs.MOST
    assert finalists({"a": answers(90), "d": answers(70)}, lambda name: 1.0) == ["a"]


def test_differences_come_with_a_test():
    assert in_words("a", "b", answers(90), answers(89), "validation pictures") == (
        "a over b: 1.0 points, not significant on 100 validation pictures (p = 1)"
    )
    assert "20.0 points, significant on 100 pictures (p = 1.9e-06)" in in_words(
        "a", "b", answers(90), answers(70), "pictures"
    )


@pytest.mark.parametrize(
    ("epochs", "seconds", "share", "expected"), [(15, 1, 60, 15), (15, 10, 60, 6), (15, 100, 60, 1), (15, 0, 1, 15)]
)
def test_epochs_are_those_that_fit(epochs, seconds, share, expected):
    assert affordable(epochs, seconds, share) == expected


@pytest.mark.parametrize(
    ("budget", "broken"),
    [
        ({}, None),
        ({"p99_ms": 9.0}, "one picture takes 10.0 ms, over --p99-ms 9"),
        ({"rate": 201.0}, "200 pictures/s, below --rate 201"),
        ({"size_mb": 19.0}, "19.5 MB, over --size-mb 19"),
        ({"p99_ms": 11.0, "rate": 199.0, "size_mb": 20.0}, None),
    ],
)
def test_limits(budget, broken):
    limits = Budget(**{"p99_ms": None, "rate": None, "size_mb": None} | budget)

    assert limits.broken_by(milliseconds=10, images_per_second=200, megabytes=19.5) == broken


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--candidates", "resnet18,resnet18"), "must name each architecture once"),
        (("--candidates", "resnet5"), "there is no architecture 'resnet5'"),
        (("--minutes", "0"), "--minutes must be positive"),
        (("--p99-ms", "-1"), "--p99-ms must be positive"),
    ],
)
def test_wrong_requests_are_refused(arguments, message, photos, tmp_path):
    result = chosen(photos, tmp_path / "photos", *arguments)

    assert (result.returncode, list(tmp_path.iterdir())) == (2, [])
    assert message in result.stderr


def test_too_few_pictures_can_t_be_compared(photos, tmp_path):
    for part in ("train", "val"):
        write(tmp_path / "few" / part, CropPictures(12, side=64))
    remember(tmp_path, {"efficientnet_lite0": 10.0})

    result = chosen(tmp_path / "few", tmp_path / "photos", "--candidates", "efficientnet_lite0")

    assert result.returncode == 2
    assert "fewer than two classes have 5 different training pictures" in result.stderr
