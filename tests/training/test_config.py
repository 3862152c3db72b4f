from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tyro

from models.common.errors import HalftoneError
from training.config.augment import AugmentConfig
from training.config.recipe import Objective, Optimisation, Recipe, Schedule, Transfer
from training.config.train import (
    Running,
    TrainConfig,
    choose_recipe,
    from_json,
    jsonable,
    left_out,
    load_recipe,
    recipe_names,
    with_recipe,
)

REQUEST = ("--data", "photos", "--model", "resnet18", "--output", "artifacts/photos")


def parsed(*flags):
    return tyro.cli(TrainConfig, args=[*REQUEST, *flags])


def resolved(recipe, *flags):
    return with_recipe(parsed(*flags), recipe, [*REQUEST, *flags], prog="python -m training")


def test_there_are_the_recipes_that_the_documentation_names():
    assert set(recipe_names()) >= {"general", "small", "vit", "quick", "fashion_mnist"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_says_what_it_costs(name):
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    text = Path(f"training/recipes/{name}.py").read_text()
    assert "python -m training --data" in text
    assert "Cost:" in text


def test_the_general_recipe_has_the_documented_settings():
    recipe = load_recipe("general")
    assert (recipe.epochs, recipe.transfer.dropout) == (100, 0.3)
    assert (recipe.optimisation.optimiser, recipe.optimisation.head_lr, recipe.optimisation.weight_decay) == (
        "adamw", 1e-3, 0.01,
    )  # fmt: skip
    assert (recipe.schedule.schedule, recipe.schedule.warmup_epochs) == ("cosine", 5)
    assert (recipe.objective.smoothing, recipe.objective.mixup, recipe.augment.policy) == (0.1, 0.2, "randaugment")


@pytest.mark.parametrize(
    ("pictures", "family", "expected"),
    [
        (999, "resnet", "small"),
        (999, "vit", "small"),
        (1000, "resnet", "general"),
        (1000, "efficientnet", "general"),
        (1000, "vit", "vit"),
        (1000, "swin", "vit"),
    ],
)
def test_auto_chooses_by_pictures_and_family(pictures, family, expected):
    assert choose_recipe("auto", pictures=pictures, family=family) == expected
    assert choose_recipe("quick", pictures=pictures, family=family) == "quick"


def test_a_wrong_recipe_is_refused_with_a_similar_name():
    with pytest.raises(
        HalftoneError, match=r"no recipe is called 'genral': did you mean general\? choose one of auto,"
    ):
        load_recipe("genral")
    with pytest.raises(HalftoneError, match="no recipe is called 'zzz': choose one of auto, "):
        load_recipe("zzz")


def test_flags_override_the_recipe_and_the_recipe_the_defaults():
    config = resolved("vit", "--warmup-epochs", "4", "--mixup", "0", "--augment.policy", "none", "--batch", "12")
    recipe = load_recipe("vit")
    assert config.recipe == "vit"
    assert config.settings == replace(
        recipe,
        batch=12,
        schedule=replace(recipe.schedule, warmup_epochs=4),
        objective=replace(recipe.objective, mixup=0.0),
        augment=replace(recipe.augment, policy="none"),
    )


def test_a_short_run_warms_up_for_less_and_goes_without_what_pays_late():
    short, longer = resolved("vit", "--epochs", "15"), resolved("vit", "--epochs", "90")
    asked = resolved("vit", "--epochs", "15", "--mixup", "0.8", "--warmup-epochs", "3")

    assert (short.settings.schedule.warmup_epochs, longer.settings.schedule.warmup_epochs) == (1, 6)
    assert (short.settings.augment.policy, short.settings.objective.mixes) == ("none", False)
    assert short.settings.augment == replace(load_recipe("vit").augment, policy="none", crop_scale=(0.8, 1))
    assert resolved("fashion_mnist", "--epochs", "1").settings.augment == load_recipe("fashion_mnist").augment
    assert (longer.settings.augment.policy, longer.settings.objective.cutmix) == ("randaugment", 1.0)
    assert (asked.settings.objective.mixup, asked.settings.schedule.warmup_epochs) == (0.8, 3)
    assert left_out(short).startswith(
        "so few epochs go without --augment.crop-scale 0.35 1 --augment.policy randaugment --mixup 0.8 --cutmix 1, "
    )
    assert "--mixup" not in left_out(asked)
    assert left_out(longer) == left_out(resolved("small", "--epochs", "1")) == ""


def test_a_flag_that_repeats_the_general_default_still_overrides_the_recipe():
    assert load_recipe("small").optimisation.head_lr != Optimisation().head_lr
    assert resolved("small", "--head-lr", "1e-3").settings.optimisation.head_lr == 1e-3


@pytest.mark.parametrize("name", recipe_names())
def test_the_identity_of_a_run_survives_json(name):
    config = resolved(name, "--teacher", "someone", "--size", "96", "--limit", "50")
    again = from_json(TrainConfig, config.identity() | {"output": str(config.output)})
    assert again.identity() == config.identity()
    assert again == config
    assert from_json(TrainConfig, jsonable(asdict(config))) == config


def test_the_identity_leaves_out_the_execution_settings():
    assert resolved("quick", "--workers", "3", "--log", "mlflow").identity() == resolved("quick").identity()
    assert resolved("quick", "--seed", "1").identity() != resolved("quick").identity()


def test_settings_of_another_version_are_refused():
    config = resolved("quick")
    values = config.identity() | {"output": "x"}
    values["settings"]["temperature"] = 3
    with pytest.raises(HalftoneError, match=r"another version .*temperature.*--restart"):
        from_json(TrainConfig, values)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (Transfer, {"unfreeze_every": -1}, "--unfreeze-every must be 0 or more epochs, not -1"),
        (Transfer, {"stage_multipliers": (1.0, -1.0, 1.0, 1.0)}, "--stage-multipliers must be four numbers >= 0, not "),
        (Transfer, {"layer_decay": 0.0}, "--layer-decay must be in (0, 1], not 0.0"),
        (Transfer, {"dropout": 1.0}, "--dropout must be in [0, 1), not 1.0"),
        (Transfer, {"drop_path": -0.1}, "--drop-path must be in [0, 1), not -0.1"),
        (Transfer, {"size": 8}, "--size must be from 16 to 4096 pixels, not 8"),
        (Optimisation, {"head_lr": 0.0}, "--head-lr must be positive, not 0.0"),
        (Optimisation, {"head_lr": float("nan")}, "--head-lr must be positive, not nan"),
        (Optimisation, {"head_lr": float("inf")}, "--head-lr must be positive, not inf"),
        (Optimisation, {"backbone_lr": -1.0}, "--backbone-lr must be 0 or more, not -1.0"),
        (Optimisation, {"weight_decay": float("nan")}, "--weight-decay must be 0 or more, not nan"),
        (Optimisation, {"momentum": 1.0}, "--momentum must be in [0, 1), not 1.0"),
        (Optimisation, {"clip": 0.0}, "--clip must be positive or None, not 0.0"),
        (Optimisation, {"accumulate": 0}, "--accumulate must be 1 or more, not 0"),
        (Optimisation, {"ema": 1.0}, "--ema must be in [0, 1), not 1.0"),
        (Schedule, {"warmup_epochs": -1.0}, "--warmup-epochs must be 0 or more, not -1.0"),
        (Schedule, {"min_lr_share": 2.0}, "--min-lr-share must be in [0, 1], not 2.0"),
        (Schedule, {"step_epochs": 0.0}, "--step-epochs must be positive, not 0.0"),
        (Schedule, {"step_factor": 0.0}, "--step-factor must be in (0, 1], not 0.0"),
        (Schedule, {"restart_epochs": 0.0}, "--restart-epochs must be positive, not 0.0"),
        (Schedule, {"restart_growth": 0.5}, "--restart-growth must be 1 or more, not 0.5"),
        (Objective, {"smoothing": 1.0}, "--smoothing must be in [0, 1), not 1.0"),
        (Objective, {"mixup": -1.0}, "--mixup must be 0 or more, not -1.0"),
        (Objective, {"cutmix": float("inf")}, "--cutmix must be 0 or more, not inf"),
        (Objective, {"mix_prob": 1.5}, "--mix-prob must be in [0, 1], not 1.5"),
        (Objective, {"switch_prob": -1.0}, "--switch-prob must be in [0, 1], not -1.0"),
        (Objective, {"teacher_share": 2.0}, "--teacher-share must be in [0, 1], not 2.0"),
        (Objective, {"teacher_temperature": 0.0}, "--teacher-temperature must be positive, not 0.0"),
        (Recipe, {"epochs": 0}, "--epochs must be 1 or more, not 0"),
        (Recipe, {"batch": 1}, "--batch must be 2 or more, not 1"),
        (Recipe, {"patience": -1}, "--patience must be 0 or more epochs, not -1"),
        (AugmentConfig, {"flip": 2.0}, "--augment.flip must lie between 0 and 1, not 2.0"),
        (Running, {"workers": -1}, "--workers must be from 0 to 256, not -1"),
        (Running, {"workers": 9999}, "--workers must be from 0 to 256, not 9999"),
        (Running, {"checkpoint_minutes": -1.0}, "--checkpoint-minutes must be 0 or more, not -1.0"),
    ],
)  # fmt: skip
def test_values_out_of_range(kind, values, message):
    with pytest.raises(HalftoneError) as caught:
        kind(**values)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": ""}, "--data and --model are needed"),
        ({"data": ""}, "--data and --model are needed"),
        ({"resume": True, "restart": True}, "--resume and --restart contradict each other: give one of them"),
        ({"max_corrupt_share": 2.0}, "--max-corrupt-share must lie in [0, 1], not 2.0"),
        ({"seed": -1}, "--seed must be 0 or more, not -1"),
    ],
)
def test_contradictory_requests(values, message):
    with pytest.raises(HalftoneError) as caught:
        TrainConfig(**{"data": "photos", "model": "resnet18", "output": Path("x")} | values)
    assert str(caught.value).startswith(message)
