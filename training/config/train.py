"""Command line of `python -m training`, recipes by name, and the settings as JSON."""

from __future__ import annotations

import argparse
import difflib
import importlib
import pkgutil
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

import training.recipes
from models.bundle.store import check_name
from models.common.cli import parse
from models.common.errors import HalftoneError
from models.spec import TRANSFORMERS
from training.config.columns import Columns
from training.config.recipe import SHORT, Recipe

SMALL = 1000

MOST_WORKERS = 256
"""As for the service: a number far beyond any machine's cores only hangs where processes are forked."""

Device = Literal["auto", "cpu", "cuda"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]

NEEDED = (
    "--data and --model are needed, as in `python -m training --data photos --model efficientnet_lite0 "
    "--output artifacts/photos`; `--from NAME` stands for --model; `--resume --output DIR` continues an unfinished run"
)

Value = TypeVar("Value")


def check_workers(workers: int | None) -> None:
    """Raise HalftoneError for a number of loader processes that no machine serves; None means the default."""
    if workers is not None and not 0 <= workers <= MOST_WORKERS:
        raise HalftoneError(f"--workers must be from 0 to {MOST_WORKERS}, not {workers}")


@dataclass(frozen=True, kw_only=True)
class Running:
    """Execution settings: they don't change the trained weights, so a run can be resumed with other values."""

    device: Device = "auto"
    """`auto` uses a GPU if there is one."""

    workers: int | None = None
    """Processes that read and augment pictures; default: one per core, at most 16."""

    compile: bool = False
    """Compile the network with torch.compile; worth it for long runs on GPUs."""

    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints within an epoch; a checkpoint is also saved after every epoch."""

    log: tuple[LoggerName, ...] = ("tensorboard",)
    """Loggers for the curves, in addition to the report; wandb and mlflow must be installed."""

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.checkpoint_minutes < 0:
            raise HalftoneError(f"--checkpoint-minutes must be 0 or more, not {self.checkpoint_minutes}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an image classifier on labelled pictures and write a bundle for export and serving."""

    data: str = ""
    """A folder (`train/` and `val/`, or one folder per class), FILE.csv or .tsv (path,label), or torchvision:NAME."""

    model: str = ""
    """Architecture of the catalogue (`python -m models`), or `timm:NAME` for any other of timm's."""

    add: Path | None = None
    """Table of further training pictures (path,label), such as `training.data.review` writes; those that a held-out
    part has too are left out."""

    from_: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Bundle to go on from: its architecture, input and weights, head included. The report compares both on the same
    pictures. Default: none, a new head on `--weights`."""

    output: Path
    """Folder of the new bundle, artifacts/NAME; other commands find it by NAME."""

    recipe: str = "auto"
    """File name in training/recipes/. `auto`: small below 1,000 training pictures, else vit for transformers, else
    general. This page shows the defaults of the recipe that is given with --help; of small for `auto`."""

    weights: str = "pretrained"
    """Initial weights: `pretrained`, `random`, or a .safetensors, .pth, .pt, .ckpt or .pth.tar file with any head and
    the names of timm or torchvision."""

    seed: int = 0
    """Seed of the split, the new head, the order and the augmentation."""

    val_share: float = 0.2
    """Share of the pictures held out for validation if the data has no split, in (0, 1)."""

    test_share: float = 0.0
    """Share of the pictures for one test after the training if the data has no split; nothing is chosen by them."""

    folds: int | None = None
    """Cross-validation while only the head is trained: each training picture is answered by a head that was trained on
    the other folds. Default: 5 below 1,000 training pictures, else 0, none."""

    limit: int | None = None
    """Use at most this number of training pictures, and of validation pictures; for experiments."""

    max_corrupt_share: float = 0.01
    """Largest share of unreadable pictures; above it, the run stops and lists them."""

    resume: bool = False
    """Continue the unfinished run of this output with its recorded settings; only --device, --workers, --compile,
    --checkpoint-minutes and --log may change."""

    restart: bool = False
    """Discard an unfinished run of this output and start again, with the flags of this command alone."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)
    running: Annotated[Running, tyro.conf.arg(name="")] = field(default_factory=Running)
    settings: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        # What `--restart` lacks is said with the flags of the run that it discards, which are not known here.
        if not (self.resume or self.restart) and not (self.data and (self.model or self.from_)):
            raise HalftoneError(NEEDED)
        if self.from_ and self.weights != "pretrained":
            raise HalftoneError("--from goes on from the weights of a bundle: omit --weights, or --from")
        check_name(self.output.name)
        if self.resume and self.restart:
            raise HalftoneError("--resume and --restart contradict each other: give one of them")
        if not 0 <= self.max_corrupt_share <= 1:
            raise HalftoneError(f"--max-corrupt-share must lie in [0, 1], not {self.max_corrupt_share}")
        if self.seed < 0:
            raise HalftoneError(f"--seed must be 0 or more, not {self.seed}")
        if not 0 < self.val_share < 1:
            raise HalftoneError(f"--val-share must lie between 0 and 1, not {self.val_share}")
        if not 0 <= self.test_share < 1 - self.val_share:
            raise HalftoneError(
                f"--test-share must be 0 or more, and less than 1 with --val-share, not {self.test_share}"
            )
        if self.folds is not None and (self.folds < 0 or self.folds == 1):
            raise HalftoneError(f"--folds must be 2 or more, or 0 for none, not {self.folds}")
        if self.limit is not None and self.limit < 1:
            raise HalftoneError(f"--limit must be 1 or more, not {self.limit}")

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.output.name

    def identity(self) -> dict[str, Any]:
        """Return the settings that identify a run, as JSON-ready values; a run is resumed only if they are equal."""
        values: dict[str, Any] = jsonable(asdict(self))
        for name in ("output", "resume", "restart", "running"):
            del values[name]
        # Runs of versions that lacked them can be continued.
        if self.table == Columns():
            del values["table"]
        for name in ("test_share", "add", "from_"):
            if not values[name]:
                del values[name]
        if self.folds is None:
            del values["folds"]
        return values


def recipe_names() -> list[str]:
    """Return the names of the recipes: the file names in training/recipes/."""
    return sorted(module.name for module in pkgutil.iter_modules(training.recipes.__path__))


def load_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        HalftoneError: no such recipe; the message lists the names.
    """
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise HalftoneError(f"no recipe is called {name!r}: {hint}choose one of auto, {', '.join(names)}")
    recipe: Recipe = importlib.import_module(f"training.recipes.{name}").RECIPE
    return recipe


def choose_recipe(name: str, *, pictures: int, family: str) -> str:
    """Return the recipe's name, with `auto` resolved by the number of training images and the family of networks."""
    if name != "auto":
        return name
    if pictures < SMALL:
        return "small"
    return "vit" if family in TRANSFORMERS else "general"


# The command line is parsed again: the recipe supplies the defaults of the second parse, and `auto` depends on the
# number of images, which is known only after the first parse has named the data. Overriding fields of the first result
# would be wrong: a flag that repeats the general default (`--head-lr 1e-3`) would lose against the recipe.
def with_recipe(config: TrainConfig, name: str, arguments: Sequence[str], *, prog: str) -> TrainConfig:
    """Return the configuration with the recipe's values as the defaults of the command line.

    Args:
        config: parsed from `arguments`.
        name: the recipe's file name.
        arguments: the command line.
        prog: the command, for the usage line.
    """
    recipe = load_recipe(name)
    asked = parse(TrainConfig, args=arguments, default=replace(config, settings=recipe), prog=prog)
    # What the recipe makes of other epochs is a default too.
    default = replace(config, settings=recipe.resized(epochs=asked.settings.epochs, size=None))
    return replace(parse(TrainConfig, args=arguments, default=default, prog=prog), recipe=name)


def left_out(config: TrainConfig) -> str:
    """Return what a short run goes without of its recipe, with the flags that bring it back; empty if nothing."""
    # A program may bring a recipe of its own.
    recipe = load_recipe(config.recipe) if config.recipe in recipe_names() else config.settings
    settings = config.settings
    if settings.epochs * SHORT > recipe.epochs:
        return ""
    whole, light, now = recipe.augment, recipe.augment.lightened(), settings.augment
    mixing, mixed = recipe.objective, settings.objective
    values: dict[str, tuple[Any, Any, Any]] = {
        f"--augment.crop-scale {whole.crop_scale[0]:g} {whole.crop_scale[1]:g}": (
            whole.crop_scale, light.crop_scale, now.crop_scale,
        ),
        f"--augment.policy {whole.policy}": (whole.policy, light.policy, now.policy),
        f"--mixup {mixing.mixup:g}": (mixing.mixup, 0, mixed.mixup),
        f"--cutmix {mixing.cutmix:g}": (mixing.cutmix, 0, mixed.cutmix),
    }  # fmt: skip
    missing = [flag for flag, (of_recipe, short, here) in values.items() if of_recipe != short == here]
    if not missing:
        return ""
    return f"so few epochs go without {' '.join(missing)}, which pays in longer runs; these flags bring it back"


def for_help(arguments: Sequence[str]) -> TrainConfig | None:
    """Return the defaults that `--help` shows: those of the recipe that the command line names, or of `small`.

    Args:
        arguments: the command line.

    Returns:
        None if no help is requested, and the defaults without a recipe apply until the recipe is known.
    """
    if not {"-h", "--help"} & set(arguments):
        return None
    recipe = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    recipe.add_argument("--recipe", default="auto")
    name = recipe.parse_known_args(arguments)[0].recipe
    settings = load_recipe("small" if name == "auto" else name)
    shown = TrainConfig(data="DIR", model="NAME", output=Path("NAME"), recipe=name, settings=settings)
    # Assigned past the checks: these have no default.
    for required in ("data", "model", "output"):
        object.__setattr__(shown, required, tyro.MISSING)
    return shown


def jsonable(value: Any) -> Any:
    """Convert a value to dictionaries, lists, strings and numbers."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[Value], values: Any) -> Value:
    """Rebuild a dataclass from the result of `jsonable(asdict(…))`.

    Raises:
        HalftoneError: a field is unknown or out of range.
    """
    return typing.cast(Value, _rebuild(kind, values))


def _rebuild(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not types.NoneType]
        return None if value is None else _rebuild(options[0], value)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        try:
            return hint(**{key: _rebuild(hints[key], item) for key, item in value.items()})  # type: ignore[operator]
        except (KeyError, TypeError) as error:
            raise HalftoneError(
                f"these settings were saved by another version (field {error}): use --restart"
            ) from None
    if isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    return Path(value) if hint is Path else value
