import shlex

import pytest
import tyro

from training.config.flags import command_of, flags_between, flags_of
from training.config.recipe import Recipe
from training.config.train import TrainConfig, recipe_names, with_recipe

REQUEST = ["--data", "my photos", "--model", "timm:resnet18", "--output", "artifacts/photos"]
OTHERS = [
    [],
    ["--epochs", "1"],
    ["--epochs", "7", "--no-freeze-norm", "--clip", "None", "--stage-multipliers", "0", "0.5", "1", "1"],
    ["--freeze-norm", "--augment.crop-scale", "0.5", "1", "--augment.one-of", "geometry", "damage"],
    [
        "--from",
        "old",
        "--add",
        "new rows.csv",
        "--label-column",
        "kind",
        "--limit",
        "40",
        "--folds",
        "0",
        "--seed",
        "3",
    ],
]


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("others", OTHERS, ids=" ".join)
def test_the_command_of_a_run_makes_the_same_run(recipe, others):
    typed = [*REQUEST, *others]
    run = with_recipe(tyro.cli(TrainConfig, args=typed), recipe, typed, prog="python -m training")
    words = shlex.split(command_of(flags_of(run) | {"--output": ["--output", "artifacts/photos"]}))
    assert words[:3] == ["python", "-m", "training"]
    asked = tyro.cli(TrainConfig, args=words[3:])
    assert asked.recipe == recipe
    assert with_recipe(asked, recipe, words[3:], prog="python -m training").identity() == run.identity()


def test_a_recipe_of_a_program_has_no_command():
    assert flags_of(tyro.cli(TrainConfig, args=[*REQUEST, "--recipe", "my own"])) is None


def test_a_flag_that_is_taken_back_replaces_the_first():
    assert flags_between(Recipe(), tyro.cli(Recipe, args=["--augment.flip", "0", "--freeze-norm"])) == {
        "--freeze-norm": ["--freeze-norm"],
        "--augment.flip": ["--augment.flip", "0.0"],
    }
