"""`python -m training.data --data DIR`: describe a data set, check every image (--check), or copy a sample (--output).

    python -m training.data --data photos --check
    python -m training.data --data photos --check --report checked
    python -m training.data --data torchvision:FashionMNIST --output sample --per-class 50 --val-per-class 20

The check reads every image and lists broken images, those in two parts and those under two labels. If there are any,
the exit code is 1. 70,000 Fashion-MNIST images in memory take 2 s, 1,000 photographs about 3 s. A report also looks for
near doublets, labels that are probably wrong, outliers and classes that look alike, at 12 ms of a core an image.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from models.common.cli import ANSWER_IS_NO, DONE, run
from models.common.errors import HalftoneError
from models.common.files import atomic_path
from models.common.text import printable
from training.config.columns import Columns
from training.data.balance import imbalance_warning
from training.data.check.duplicates import Duplicates, equal_pairs, find_duplicates, parts
from training.data.check.reading import Reading, read_all
from training.data.check.table import TABLE
from training.data.load import load_data
from training.data.pictures import Data, read_named
from training.data.split import first_of_every_class

PROG = "python -m training.data"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Describe labelled pictures as training reads them, check them, or copy a sample of them."""

    data: str
    """A folder (`train/` and `val/`, or one folder per class), FILE.csv or .tsv (path,label), or torchvision:NAME."""

    table: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)

    val_share: float = 0.2
    """Share of the pictures held out for validation if the data has no split, in (0, 1)."""

    seed: int = 0
    """Seed of that split and of the sample."""

    check: bool = False
    """Read every picture; exit code 1 if one is broken, in two parts, or under two labels."""

    report: Path | None = None
    """With `--check`: folder for a page with wrong labels, near doublets and outliers, and a table to correct them."""

    output: Path | None = None
    """New folder for a sample as PNG files, in train/CLASS and val/CLASS."""

    per_class: int = 50
    """Sample: largest number of training pictures per class."""

    val_per_class: int = 20
    """Sample: largest number of validation pictures per class."""

    def __post_init__(self) -> None:
        if self.per_class < 1 or self.val_per_class < 1:
            raise HalftoneError("--per-class and --val-per-class must be 1 or more")
        if self.output is not None and self.output.exists():
            raise HalftoneError(f"--output {self.output} exists already: choose a new folder")
        if self.report is not None and not self.check:
            raise HalftoneError("--report is of a check: add --check")
        if self.report is not None and os.path.lexists(self.report / TABLE):
            raise HalftoneError(f"{self.report / TABLE} exists and may be edited: name another folder with --report")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Faults of a data set."""

    broken: list[str]
    """One line per unreadable image, with the reason."""

    duplicates: Duplicates
    """Images with the same pixels."""


def check(data: Data) -> Findings:
    """Read every image of all parts."""
    return _findings(data, read_all(data, lambda place, pixels: None))


def _findings(data: Data, reading: Reading) -> Findings:
    broken = [f"{parts(data)[part].name(index)}: {reason}" for (part, index), reason in reading.broken.items()]
    return Findings(broken=broken, duplicates=equal_pairs(data, reading.hashes))


def _inspect(data: Data, location: str, folder: Path) -> Findings:
    """Write the report, and say what it holds."""
    # Imported here: a plain check needs no PyTorch.
    from training.data.check.inspection import inspect
    from training.data.check.page import write_inspection
    from training.data.check.problems import doublets

    inspection = inspect(data)
    table = write_inspection(folder, data, inspection, title=location)
    near = [each for each in doublets(data, inspection) if each.kind == "near"]
    crossing = sum(bool(each.conflict) for each in near)
    wrong, outliers = len(inspection.judgement.wrong), len(inspection.outliers)
    print(f"{wrong} labels are probably wrong: {inspection.judgement.in_words()}")
    print(f"{len(near)} near doublets, {crossing} of them in two parts or under two labels; {outliers} outliers")
    print(f"the pictures are on {printable(folder / 'index.html')}")
    if table:
        print(f"correct {printable(folder / TABLE)}, then train with it: --data {printable(folder / TABLE)}")
    return _findings(data, inspection.reading)


def write_sample(data: Data, folder: Path, *, per_class: int, val_per_class: int, seed: int) -> int:
    """Copy some images of every class as PNG files; return their number.

    Args:
        data: the source.
        folder: the new folder; it must not exist.
        per_class: largest number of training images per class.
        val_per_class: largest number of validation images per class.
        seed: of the choice.
    """
    count = 0
    for part, pictures, most in (("train", data.train, per_class), ("val", data.val, val_per_class)):
        for index in map(int, first_of_every_class(pictures, most, seed=seed)):
            target = folder / part / pictures.labels[pictures.targets[index]] / f"{index:05d}.png"
            with atomic_path(target) as path:
                _compact(read_named(pictures, index)).save(path, optimize=True)
            count += 1
    return count


def _compact(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Image.Image:
    """Return the image with one channel if it is grey."""
    grey = bool((pixels == pixels[:, :, :1]).all())
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]) if grey else pixels)


def _describe(data: Data, *, duplicates: bool) -> None:
    print(
        f"{printable(data.description)}: {len(data.train):,} training pictures, {len(data.val):,} validation pictures"
    )
    for index, label in enumerate(data.train.labels):
        train, val = (int((part.targets == index).sum()) for part in (data.train, data.val))
        print(f"  {printable(label)}: {train:,} + {val:,}")
    # A check compares the pixels instead.
    found = find_duplicates(data).warnings() if duplicates else []
    for warning in (*data.warnings, *found, imbalance_warning(data.train.targets, data.train.labels)):
        if warning:
            print(f"warning: {printable(warning)}")
    print(f"fingerprint {data.fingerprint()}")


def _report(findings: Findings, data: Data) -> int:
    for title, names in (
        ("broken pictures; repair or remove them", findings.broken),
        ("pictures under two labels; correct or remove one of each pair", findings.duplicates.mislabelled),
        ("pictures in two parts; remove them from one", findings.duplicates.shared),
        ("pictures repeated within a part", findings.duplicates.repeated),
    ):
        if names:
            print(f"{len(names)} {title}:")
            print("\n".join(f"  {printable(name)}" for name in names))
    if findings.broken or findings.duplicates.mislabelled or findings.duplicates.shared:
        return ANSWER_IS_NO
    count = sum(map(len, parts(data).values()))
    print(f"all {count:,} pictures can be read, and none is in two parts or under two labels")
    return DONE


def _main(config: DataConfig) -> int:
    data = load_data(config.data, val_share=config.val_share, seed=config.seed, columns=config.table)
    _describe(data, duplicates=not config.check)
    if config.output is not None:
        count = write_sample(
            data, config.output, per_class=config.per_class, val_per_class=config.val_per_class, seed=config.seed
        )
        print(f"wrote {count} pictures to {printable(config.output)}")
    if not config.check:
        return DONE
    return _report(_inspect(data, config.data, config.report) if config.report else check(data), data)


if __name__ == "__main__":
    run(_main, DataConfig, prog=PROG, example="--data photos --check")
