"""Likeness of images to those of the pretraining, and what `--freeze auto` makes of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.catalog import architecture
from models.checkpoint import build, load_embedded
from models.graph import Normalise
from tests.training.memory import CropPictures, crops
from tests.training.runs import TINY, config
from training.config.defaults import resolve_freeze, resolve_transfer
from training.config.recipe import Recipe, Transfer
from training.config.train import load_recipe
from training.data.augment import EvaluationView
from training.data.dataset import PictureSet
from training.data.pictures import Pictures
from training.frozen.features import Backbone, Plain, plain_features
from training.frozen.likeness import Likeness, measure_likeness, neighbours_right
from training.loop.build import build as build_parts
from training.loop.distributed import World
from training.optim.precision import precision

LITE0 = architecture("efficientnet_lite0")
SPEC = replace(LITE0.input, size=64)


class Stripes(CropPictures):
    """Noise whose class is the brightness: bare pixels tell it, features of photographs don't tell it better."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        generator = np.random.default_rng(0)
        levels = 60 + 45 * self.targets
        self.pixels = [generator.integers(level - 50, level + 50, (48, 48, 3)).astype(np.uint8) for level in levels]


@pytest.fixture(scope="module")
def pretrained() -> torch.nn.Module:
    module = build(LITE0, classes=1000)
    load_embedded(module, LITE0)
    return module


def look(module: torch.nn.Module, pictures: Pictures) -> Plain:
    exact = precision("off", module, torch.device("cpu"), backbone_trained=False)
    backbone = Backbone(module=module, head=LITE0.head, normalise=Normalise(SPEC), precision=exact)
    return plain_features(backbone, PictureSet(pictures, EvaluationView(SPEC), seed=0, max_corrupt_share=1), workers=0)


def test_photographs_are_similar_and_noise_is_not(pretrained: torch.nn.Module) -> None:
    photographs = measure_likeness(look(pretrained, CropPictures(80, classes=8, side=100, broken=(3, 70))))
    noise = measure_likeness(look(pretrained, Stripes(48)))

    assert photographs.pictures == 78
    assert photographs.similar
    assert photographs.features > photographs.pixels
    assert not noise.similar
    assert noise.pixels > 0.95
    assert "of 78 pictures, the 5 nearest of the others classify" in str(photographs)


def test_neighbours_vote_without_the_image_itself() -> None:
    places = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5])
    proximity = -(places[:, None] - places).abs()
    together = torch.arange(12) // 6
    alone = torch.where(torch.arange(12) == 2, 1, together)

    assert neighbours_right(proximity, together) == 12
    assert neighbours_right(proximity, alone) == 11
    assert neighbours_right(proximity[:1, :1], together[:1]) == 0


@pytest.mark.parametrize(
    ("features", "pixels", "pictures", "similar"),
    [
        (0.9, 0.5, 300, True),
        (0.75, 0.75, 300, False),
        (0.4, 0.05, 300, True),
        (0.99, 0.9, 300, True),
        (0.5, 0.9, 19, True),
    ],
)
def test_the_odds_decide(features: float, pixels: float, pictures: int, similar: bool) -> None:
    assert Likeness(features=features, pixels=pixels, pictures=pictures).similar == similar


@pytest.mark.parametrize(
    ("pictures", "similar", "freeze"),
    [
        (999, True, "head"), (1000, True, "late"), (9999, True, "late"), (10_000, True, "full"),
        (999, False, "late"), (1000, False, "full"), (10_000, False, "full"),
    ],
)  # fmt: skip
def test_the_two_columns_of_auto(pictures: int, similar: bool, freeze: str) -> None:
    assert resolve_freeze("auto", pictures=pictures, pretrained=True, similar=similar) == freeze
    assert resolve_freeze("head", pictures=pictures, pretrained=True, similar=similar) == "head"


def rate(recipe: Recipe, model: str, *, similar: bool = False, pretrained: bool = True) -> float:
    """Return the backbone's learning rate that 500 images resolve to."""
    resolved = resolve_transfer(recipe, architecture(model), pictures=500, pretrained=pretrained, similar=similar)
    return resolved.optimisation.backbone_lr


def test_unlike_images_raise_the_rate_if_auto_chooses_the_layers() -> None:
    small = load_recipe("small")

    assert rate(small, "resnet18") == pytest.approx(1e-3)
    assert rate(small, "vit_ti16") == pytest.approx(3e-4)
    assert rate(small, "resnet18", similar=True) == 1e-4
    assert rate(small, "resnet18", pretrained=False) == 1e-4
    assert rate(replace(small, transfer=Transfer(freeze="late")), "resnet18") == 1e-4


@pytest.mark.parametrize(
    ("given", "freeze", "measured"), [("auto", "head", True), ("yes", "head", False), ("no", "late", False)]
)
def test_a_run_measures_or_believes(given: str, freeze: str, measured: bool, tmp_path) -> None:
    recipe = replace(TINY, transfer=Transfer(size=64, similar=given))
    request = config(tmp_path / "new", recipe, model="efficientnet_lite0", weights="pretrained")

    decision = build_parts(request, crops(side=100), World()).decision

    record = decision.to_dict()
    assert record["freeze"] == decision.recipe.transfer.freeze == freeze
    assert (record["likeness"] is not None) == measured
    assert record["backbone_lr"] == pytest.approx(1e-4 if freeze == "head" else 1e-3)
    assert ("--similar yes|no or --freeze decides otherwise" in str(decision)) == measured
