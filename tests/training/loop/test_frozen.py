"""Runs of which only the head learns: features are computed once, and the accuracy is cross-validated."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.bundle.bundle import WEIGHTS
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.graph import ServingGraph
from models.preprocess.transform import fit
from tests.training.memory import CropPictures, crops
from tests.training.runs import TINY, run, timeless
from training.__main__ import _summary
from training.config.recipe import Objective, Optimisation, Transfer
from training.data.pictures import Data
from training.loop.checkpoints import RunFolder

HEAD = replace(
    TINY,
    epochs=4,
    optimisation=Optimisation(head_lr=3e-3),
    transfer=Transfer(size=64, freeze="head", dropout=0.2),
)
LITE0 = {"model": "efficientnet_lite0", "weights": "pretrained"}


class Twins(CropPictures):
    """Crops of which the second half are those of the first, a little darker; the labels are random."""

    def __init__(self, count):
        super().__init__(count, side=64)
        half, generator = count // 2, np.random.default_rng(0)
        darker = [(pixels * 0.9).astype(np.uint8) for pixels in self.pixels[:half]]
        self.pixels = self.pixels[:half] + darker
        self.targets = np.tile(generator.integers(4, size=half), 2)


@pytest.fixture(scope="module")
def photographs():
    data = crops(train=80, val=24, side=64, broken=(7,))
    return replace(data, test=CropPictures(12, side=64, seed=3))


@pytest.fixture(scope="module")
def trained(photographs, tmp_path_factory):
    return run(tmp_path_factory.mktemp("frozen") / "photos", HEAD, data=photographs, **LITE0)


def test_the_accuracy_is_cross_validated_on_all_readable_training_pictures(trained):
    metrics = trained.manifest.training["metrics"]
    low, high = metrics["cv_top1_interval"]

    assert (metrics["cv_folds"], metrics["cv_pictures"], metrics["val_pictures"]) == (5, 79, 24)
    assert 0.8 < low < metrics["cv_top1"] <= high <= 1
    assert metrics["cv_majority"]["value"] == pytest.approx(20 / 79)
    assert "5-fold cross-validated accuracy" in trained.read("report/index.html").decode()


def test_the_headline_is_that_of_the_test_part_or_else_cross_validated(trained, photographs, tmp_path):
    alone = run(tmp_path / "photos", HEAD, data=replace(photographs, test=None), **LITE0)

    assert "test top-1 " in _summary(trained, done=False)
    summary = _summary(alone, done=False)
    assert "5-fold cross-validated top-1 " in summary
    assert "79 training pictures, each answered by a head that was trained on the other folds" in summary
    assert "on 79 training pictures, each answered by" in alone.read("README.md").decode()
    assert trained.read(WEIGHTS) == alone.read(WEIGHTS)


def test_the_bundle_answers_as_the_cached_features_did(trained, photographs):
    graph = ServingGraph(load_module(trained), trained.manifest.input).eval()
    metrics, history = trained.manifest.training["metrics"], trained.manifest.training["history"]

    for part, pictures in (("val", photographs.val), ("test", photographs.test)):
        pixels = [torch.tensor(fit(pictures.read(index), trained.manifest.input)) for index in range(len(pictures))]
        with torch.inference_mode():
            answers = graph(torch.stack(pixels)).argmax(dim=1).numpy()
        assert (answers == pictures.targets).mean() == pytest.approx(metrics[f"{part}_top1"])
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert trained.manifest.training["unreadable"]["train"] == [photographs.train.name(7)]


def test_twins_are_in_one_fold(tmp_path):
    data = Data(train=Twins(80), val=CropPictures(8, side=64), description="twins", own_split=True)

    metrics = run(tmp_path / "photos", HEAD, data=data, **LITE0).manifest.training["metrics"]

    assert (metrics["cv_groups"], metrics["cv_pictures"]) == (40, 80)
    # The labels are random: with the twin of each picture in training, most answers would be right.
    assert metrics["cv_top1"] < 0.6
    low, high = metrics["cv_top1_interval"]
    assert high - low > 0.25


def test_a_killed_run_ends_with_the_same_weights_and_estimate(trained, photographs, tmp_path, monkeypatch):
    save_last, count = RunFolder.save_last, 0

    def save(folder, name, state, resume, **options):
        nonlocal count
        save_last(folder, name, state, resume, **options)
        count += 1
        if count == 3:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_last", save)
        with pytest.raises(InterruptedError):
            run(tmp_path / "photos", HEAD, data=photographs, **LITE0)
    again = run(tmp_path / "photos", HEAD, data=photographs, **LITE0)

    assert again.read(WEIGHTS) == trained.read(WEIGHTS)
    assert timeless(again) == timeless(trained)


def test_without_folds_nothing_is_estimated(photographs, tmp_path):
    recipe = replace(HEAD, epochs=1)

    bundle = run(tmp_path / "photos", recipe, data=replace(photographs, test=None), folds=0, **LITE0)

    assert not [name for name in bundle.manifest.training["metrics"] if name.startswith("cv")]
    assert "validation top-1 " in _summary(bundle, done=False)


@pytest.mark.parametrize(
    ("recipe", "folds", "message"),
    [
        (HEAD, 41, "--folds 41 needs 82 training pictures, and there are 80: lower it"),
        (HEAD, 1, "--folds must be 2 or more, or 0 for none, not 1"),
        (replace(HEAD, transfer=Transfer(size=64, freeze="late")), 5, "--folds 5 needs a frozen backbone"),
        (replace(HEAD, objective=Objective(mixup=0.2)), 5, "--mixup 0 --cutmix 0"),
    ],
)
def test_impossible_folds_are_refused(recipe, folds, message, photographs, tmp_path):
    with pytest.raises(HalftoneError, match=message):
        run(tmp_path / "photos", recipe, data=photographs, folds=folds, **LITE0)
    assert list(tmp_path.iterdir()) == []
