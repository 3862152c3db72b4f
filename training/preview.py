"""`python -m training.preview --data DIR --output sheet.png`: draw a sheet of augmented images before training.

    python -m training.preview --data photos --recipe general --output sheet.png
    python -m training.preview --data photos --recipe small --augment.rotate 30 --augment.blur 0.2 --output sheet.png

Each row is one training image: first as in evaluation, then in augmented versions, mixed with another row's if the
recipe has Mixup or CutMix. Takes half a second; with mixing about four, mostly for loading torch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image, ImageDraw, ImageFont

from models.catalog import architecture
from models.common.cli import DONE, parse, run
from models.common.errors import HalftoneError
from models.common.files import atomic_path
from models.common.text import printable
from models.preprocess.resample import Pixels
from models.preprocess.transform import fit
from models.spec import InputSpec
from training.config.augment import AugmentConfig
from training.config.columns import Columns
from training.config.defaults import input_spec
from training.config.recipe import Objective
from training.config.train import load_recipe
from training.data.augment import build_augment
from training.data.load import load_data
from training.data.pictures import Pictures, read_named
from training.data.seeds import derived_seed
from training.data.split import stratified_sample

PROG = "python -m training.preview"

GAP, CAPTION, TILE = 8, 20, 160
INK, QUIET = (29, 39, 51), (107, 119, 133)


@dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """Draw a sheet of augmented training pictures."""

    data: str
    """As for training: a folder, FILE.csv, or torchvision:NAME."""

    output: Path
    """The sheet, a .png file."""

    recipe: str = "general"
    """File name in training/recipes/: the source of augmentation and input size; --augment.* changes it."""

    model: str = "efficientnet_lite0"
    """Architecture that defines the input."""

    size: int | None = None
    """Side of the input in pixels; default: that of the recipe, or of the model."""

    rows: int = 6
    """Number of pictures, spread over the classes."""

    columns: int = 7
    """Number of augmented versions of each picture."""

    seed: int = 0
    """Seed of the choice of pictures and of their versions."""

    mixup: float | None = None
    """Mixup's alpha; default: the recipe's, 0 off."""

    cutmix: float | None = None
    """CutMix's alpha; default: the recipe's, 0 off."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.output.suffix.lower() != ".png":
            raise HalftoneError(f"--output {self.output} must end in .png")
        if not (1 <= self.rows <= 100 and 1 <= self.columns <= 100):
            raise HalftoneError(f"--rows and --columns must lie between 1 and 100, not {self.rows} and {self.columns}")
        if self.seed < 0:
            raise HalftoneError(f"--seed must be 0 or more, not {self.seed}")
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if value is not None and not 0 <= value < math.inf:
                raise HalftoneError(f"--{name} must be 0 or more, not {value}")


def with_recipe(config: PreviewConfig, arguments: Sequence[str]) -> PreviewConfig:
    """Return the request with the recipe's augmentation as the default of the command line.

    Args:
        config: parsed from `arguments`.
        arguments: the command line.
    """
    default = replace(config, augment=load_recipe(config.recipe).augment)
    return parse(PreviewConfig, args=arguments, default=default, prog=PROG)


def sheet(
    pictures: Pictures,
    augment: AugmentConfig,
    spec: InputSpec,
    *,
    rows: int,
    columns: int,
    seed: int,
    objective: Objective | None = None,
) -> Pixels:
    """Draw the sheet, uint8 RGB.

    Args:
        pictures: the images to choose from.
        augment: the augmentation.
        spec: the network's input.
        rows: number of images.
        columns: number of augmented versions of each, in addition to the evaluation's.
        seed: of the choice and of the versions.
        objective: says how images are mixed, each column as a batch; None for no mixing.
    """
    view = build_augment(augment, spec)
    chosen = [int(index) for index in stratified_sample(pictures, min(rows, len(pictures)), seed=seed)]
    found = [read_named(pictures, index) for index in chosen]
    versions = np.stack(
        [
            np.stack([view(picture, derived_seed(seed, index, column)) for column in range(columns)])
            for index, picture in zip(chosen, found, strict=True)
        ]
    )
    shares = [[""] * columns for _ in chosen]
    if objective is not None and objective.mixes:
        versions, shares = _mixed(versions, pictures, chosen, objective, seed)
    captions = [f"{pictures.labels[pictures.targets[index]]}    {pictures.name(index)}" for index in chosen]
    return np.concatenate(
        [
            _row([fit(picture, spec), *row], caption, ["", *below])
            for picture, row, caption, below in zip(found, versions, captions, shares, strict=True)
        ]
    )


def _mixed(
    versions: npt.NDArray[np.uint8], pictures: Pictures, chosen: Sequence[int], objective: Objective, seed: int
) -> tuple[npt.NDArray[np.uint8], list[list[str]]]:
    """Mix every column of the sheet as training mixes a batch; return it with the labels' shares in words."""
    # Imported here, as it loads torch: most sheets have no mixed images.
    import torch

    from training.optim.objective import Mixing

    targets = torch.as_tensor(pictures.targets[list(chosen)]).long()
    # Mixing pairs the first with the last: of an odd number of rows, the second is there twice, for the first.
    rows = [*range(len(chosen)), *([min(1, len(chosen) - 1)] if len(chosen) % 2 else [])]
    mixing = Mixing(objective, len(pictures.labels), seed)
    mixed, shares = versions.copy(), [[""] * versions.shape[1] for _ in chosen]
    for column in range(versions.shape[1]):
        images = torch.tensor(versions[rows, column]).permute(0, 3, 1, 2).float()
        images, parts = mixing(images, targets[rows], column)
        batch = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        mixed[:, column] = batch[: len(chosen)]
        for row in range(len(chosen)):
            shares[row][column] = _in_words(parts[row].tolist(), pictures.labels)
    return mixed, shares


def _in_words(parts: Sequence[float], labels: Sequence[str]) -> str:
    """Return the labels that have a share, the largest first, such as `70 % coat + 30 % bag`."""
    largest = sorted(((part, label) for part, label in zip(parts, labels, strict=True) if part >= 0.005), reverse=True)
    return " + ".join(f"{part:.0%} {label}" for part, label in largest)


def _row(tiles: Sequence[Pixels], caption: str, below: Sequence[str]) -> Pixels:
    shown = [_enlarged(tile) for tile in tiles]
    side = shown[0].shape[0]
    words = CAPTION if any(below) else 0
    canvas = Image.new("RGB", (GAP + len(shown) * (side + GAP) + GAP, side + CAPTION + words + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(size=13), ImageFont.load_default(size=10)
    draw.text((GAP, 2), caption, fill=INK, font=font)
    for place, (tile, text) in enumerate(zip(shown, below, strict=True)):
        # A wider gap separates the evaluation's version.
        left = GAP + place * (side + GAP) + (GAP if place else 0)
        canvas.paste(Image.fromarray(tile), (left, CAPTION))
        draw.text((left, CAPTION + side + 2), text, fill=QUIET, font=small)
    return np.asarray(canvas)


def _enlarged(tile: npt.NDArray[np.uint8]) -> Pixels:
    """Enlarge a small image by drawing each pixel as a block, without interpolation."""
    factor = max(1, TILE // tile.shape[0])
    return np.repeat(np.repeat(tile, factor, axis=0), factor, axis=1)


def _main(config: PreviewConfig) -> int:
    config = with_recipe(config, sys.argv[1:])
    recipe = load_recipe(config.recipe)
    transfer, objective = recipe.transfer, recipe.objective
    objective = replace(
        objective,
        mixup=objective.mixup if config.mixup is None else config.mixup,
        cutmix=objective.cutmix if config.cutmix is None else config.cutmix,
    )
    spec = input_spec(architecture(config.model).input, replace(transfer, size=config.size or transfer.size))
    pictures = load_data(config.data, columns=config.table).train
    pixels = sheet(
        pictures,
        config.augment,
        spec,
        rows=config.rows,
        columns=config.columns,
        seed=config.seed,
        objective=objective,
    )
    with atomic_path(config.output) as path:
        Image.fromarray(pixels).save(path)
    print(f"wrote {printable(config.output)}: the first column as in evaluation, the others as in training")
    return DONE


if __name__ == "__main__":
    run(_main, PreviewConfig, prog=PROG, example="--data photos --recipe general --output sheet.png")
