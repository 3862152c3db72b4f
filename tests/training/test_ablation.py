"""What tricks bring: a recipe and the same without each of them, on the same pictures."""

import json

import numpy as np
import pytest

from tests import commands
from tests.training.samples import class_folders
from training.ablation.effect import paired_effect
from training.ablation.tricks import NAMES, tricks_of
from training.config.train import load_recipe, recipe_names

BASE = (
    "--model", "mobilenetv3_small", "--weights", "random", "--recipe", "small", "--epochs", "1", "--size", "32",
    "--workers", "0", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    for part, count, seed in (("train", 8, 0), ("val", 4, 50), ("test", 4, 90)):
        class_folders(tmp_path / "data" / part, {"cat": count, "dog": count}, first_seed=seed)
    for file in (tmp_path / "data" / "test").rglob("*.png"):
        file.write_bytes(b"\x89PNG\r\n\x1a\n: reading this would be noticed")
    return tmp_path / "data"


@pytest.fixture
def without_drawings(monkeypatch):
    """The report of a run is not the subject here, and drawing takes most of the time."""
    draw = "matplotlib.figure.Figure.savefig"
    monkeypatch.setattr(draw, lambda figure, file, **options: file.write(b"drawing"))


@pytest.mark.usefixtures("without_drawings")
def test_each_trick_is_measured_on_the_same_pictures_and_no_run_is_repeated(pictures, tmp_path):
    output = tmp_path / "out"
    request = ("training.ablation", "--data", pictures, *BASE, "--seeds", "2", "--tricks", "smoothing,mixup")
    request += ("--output", output, "--json")

    first = commands.run(*request)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    # As a kill would leave it: one run is missing.
    (output / "runs" / "mixup-1.json").unlink()
    again = commands.run(*request)

    assert [row["name"] for row in document["tricks"]] == ["smoothing", "mixup"]
    assert [row["change"] for row in document["tricks"]] == ["taken out", "put in"]
    assert (document["val"], document["seeds"], document["epochs"]) == (8, 2, 1)
    for row in document["tricks"]:
        brings = row["brings"]
        sign = 1 if row["change"] == "put in" else -1
        assert brings["value"] == pytest.approx(sign * (row["top1"] - document["recipe"]["top1"]["value"]))
        assert brings["low"] <= brings["value"] <= brings["high"]
        assert len(brings["by_seed"]) == 2
    assert first.stderr.count("run ") == 6
    assert "run 6 of 6: mixup put in (alpha 0.2), seed 1" in again.stderr
    assert again.stderr.count("run ") == 1
    assert [row["brings"] for row in json.loads(again.stdout)["tricks"]] == [
        row["brings"] for row in document["tricks"]
    ]
    assert sorted(path.name for path in output.iterdir()) == ["ablation.json", "ablation.md", "runs"]
    assert all(path.suffix == ".json" for path in (output / "runs").iterdir())
    assert "| mixup (alpha 0.2) | put in |" in (output / "ablation.md").read_text()

    other = commands.run(*request, "--limit", "4")
    assert other.returncode == 2
    assert "is the result of other settings: choose another --output" in other.stderr


@pytest.mark.parametrize("name", recipe_names())
def test_every_trick_changes_every_recipe(name):
    recipe = load_recipe(name)

    tricks = tricks_of(recipe)

    assert [trick.name for trick in tricks] == list(NAMES)
    assert all(trick.recipe != recipe for trick in tricks)
    # Taken out and put in again, or the other way round, a trick has the other change.
    for trick in tricks:
        (turned,) = tricks_of(trick.recipe, [trick.name])
        assert turned.change != trick.change or trick.name == "other_crops"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tricks", "mixup,magic"), "there is no trick 'magic': choose from crops, other_crops"),
        (("--tricks", "two_rates", "--weights", "random"), "random weights all learn at one rate"),
        (("--tricks", "mixup,mixup"), "must name each trick once"),
        (("--seeds", "0"), "--seeds must be 1 or more"),
    ],
)
def test_wrong_requests_are_refused(arguments, message, pictures, tmp_path):
    result = commands.run("training.ablation", "--data", pictures, *arguments, "--output", tmp_path / "out")

    assert (result.returncode, (tmp_path / "out").exists()) == (2, False)
    assert message in result.stderr


def test_the_interval_covers_seeds_and_pictures():
    generator, covered = np.random.default_rng(0), 0
    for _ in range(200):
        # Of three seeds and 100 pictures, each has its own effect on a true difference of 0.1.
        seeds, pictures = generator.normal(0, 0.05, (3, 1)), generator.normal(0, 0.1, (1, 100))
        base = generator.random((3, 100))
        effect = paired_effect(base < np.clip(0.6 + seeds + pictures, 0, 1), base < 0.5)
        covered += effect.low <= 0.1 <= effect.high

    assert 0.93 <= covered / 200 <= 1


def test_with_one_seed_the_interval_is_that_of_the_pictures():
    without = np.zeros((1, 100), dtype=bool)
    with_trick = without.copy()
    with_trick[0, :10] = True

    effect = paired_effect(with_trick, without)

    # The t interval of 100 differences, of which ten are 1: 0.1 ± 1.984 · 0.03015.
    assert (effect.value, effect.low, effect.high) == pytest.approx((0.1, 0.0402, 0.1598), abs=1e-3)
    assert paired_effect(without, without).high == 0
