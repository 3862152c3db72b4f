from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.common.errors import HalftoneError
from models.preprocess.transform import fit
from models.spec import InputSpec
from tests.commands import run
from tests.training.samples import class_folders
from training.config.augment import AugmentConfig
from training.config.recipe import Objective
from training.data.load import load_data
from training.preview import CAPTION, GAP, PreviewConfig, sheet, with_recipe


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", {"cat": 4, "dog": 4})


def test_a_sheet_has_a_row_per_picture_and_the_evaluation_first(data):
    pictures = load_data(str(data)).train
    spec = InputSpec(size=80)
    pixels = sheet(pictures, AugmentConfig(), spec, rows=2, columns=3, seed=0)
    tile = 160
    assert pixels.shape == (2 * (tile + CAPTION + GAP), 4 * (tile + GAP) + 2 * GAP, 3)
    first = pixels[CAPTION : CAPTION + tile : 2, GAP : GAP + tile : 2]
    assert any(np.array_equal(first, fit(pictures.read(index), spec)) for index in range(len(pictures)))
    assert np.array_equal(pixels, sheet(pictures, AugmentConfig(), spec, rows=2, columns=3, seed=0))
    assert not np.array_equal(pixels, sheet(pictures, AugmentConfig(), spec, rows=2, columns=3, seed=1))


def test_flags_change_the_recipe(data):
    arguments = ["--data", str(data), "--output", "x.png", "--recipe", "general", "--augment.rotate", "7"]
    config = with_recipe(PreviewConfig(data=str(data), output=Path("x.png"), recipe="general"), arguments)
    from training.config.train import load_recipe

    recipe = load_recipe("general").augment
    assert config.augment.rotate == 7
    assert config.augment.policy == recipe.policy
    assert config.augment.crop_scale == recipe.crop_scale


def test_the_command(data, tmp_path):
    output = tmp_path / "sheet.png"
    options = ("--output", output, "--size", "32", "--rows", "2", "--columns", "2")
    result = run("training.preview", "--data", data, *options)
    assert result.returncode == 0, result.stderr
    with Image.open(output) as image:
        assert image.height == 2 * (160 + 2 * CAPTION + GAP)


def test_mixed_versions_show_both_pictures_and_their_shares(data):
    pictures, spec = load_data(str(data)).train, InputSpec(size=160)
    plain = AugmentConfig(crop_scale=(1, 1), flip=0, brightness=0, contrast=0, saturation=0)
    options = {"rows": 3, "columns": 4, "seed": 0}
    before = sheet(pictures, plain, spec, **options)
    mixed = sheet(pictures, plain, spec, **options, objective=Objective(mixup=1.0))

    height, width = 160 + 2 * CAPTION + GAP, 160 + GAP
    assert mixed.shape == (3 * height, before.shape[1], 3)
    for row in range(3):
        unmixed = before[row * (160 + CAPTION + GAP) + CAPTION :][:160]
        tiles = mixed[row * height + CAPTION :][:160]
        # The evaluation's version stays.
        assert np.array_equal(tiles[:, GAP : GAP + 160], unmixed[:, GAP : GAP + 160])
        assert not np.array_equal(tiles[:, 2 * GAP + width :], unmixed[:, 2 * GAP + width :])
    cut = sheet(pictures, plain, spec, **options, objective=Objective(cutmix=1.0))
    assert not np.array_equal(cut, mixed)


def test_a_recipe_that_mixes_is_drawn_mixed_unless_told_otherwise(data, tmp_path):
    options = ("--data", data, "--size", "32", "--rows", "2", "--columns", "1", "--recipe", "general", "--output")
    assert run("training.preview", *options, tmp_path / "mixed.png").returncode == 0
    assert run("training.preview", *options, tmp_path / "plain.png", "--mixup", "0").returncode == 0

    with Image.open(tmp_path / "mixed.png") as mixed, Image.open(tmp_path / "plain.png") as plain:
        assert (mixed.height, plain.height) == (2 * (160 + 2 * CAPTION + GAP), 2 * (160 + CAPTION + GAP))


def test_a_broken_picture_is_named(data):
    for file in data.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(HalftoneError, match=r"(cat|dog)/00\d\.png: these 10 bytes are not a picture"):
        sheet(load_data(str(data)).train, AugmentConfig(), InputSpec(size=32), rows=1, columns=1, seed=0)


def test_other_formats_are_refused():
    with pytest.raises(HalftoneError, match=r"must end in \.png"):
        PreviewConfig(data="photos", output=Path("sheet.gif"))
    with pytest.raises(HalftoneError, match=r"--cutmix must be 0 or more, not -1"):
        PreviewConfig(data="photos", output=Path("sheet.png"), cutmix=-1)
