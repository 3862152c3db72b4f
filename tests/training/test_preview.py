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
        assert image.height == 2 * (160 + CAPTION + GAP)


def test_a_broken_picture_is_named(data):
    for file in data.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(HalftoneError, match=r"(cat|dog)/00\d\.png: these 10 bytes are not a picture"):
        sheet(load_data(str(data)).train, AugmentConfig(), InputSpec(size=32), rows=1, columns=1, seed=0)


def test_other_formats_are_refused():
    with pytest.raises(HalftoneError, match=r"must end in \.png"):
        PreviewConfig(data="photos", output=Path("sheet.gif"))
