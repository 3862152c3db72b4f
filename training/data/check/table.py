"""Table of all images with what was found, to be edited and given back to training as `--data FILE.csv`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.common.files import write_atomic
from training.config.columns import CHECKED
from training.data.check.duplicates import Place, label, parts
from training.data.pictures import Data

TABLE = "pictures.csv"
SPLITS = {"training": "train", "validation": "val", "test": "test"}


@dataclass(kw_only=True)
class Verdict:
    """Problems of one image."""

    problems: list[str] = field(default_factory=list)

    suggested: str = ""
    """Class that fits better; empty if the label fits."""


def write_table(file: Path, data: Data, verdicts: Mapping[Place, Verdict]) -> bool:
    """Write path, label, split, problem, suggested and keep of every image; keep is 0 for those that can't be read.

    Returns:
        False if nothing was written, because the images are not in files.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(CHECKED)
    everything = parts(data)
    for part, pictures in everything.items():
        for index in range(len(pictures)):
            path, verdict = pictures.file(index), verdicts.get((part, index), Verdict())
            if path is None:
                return False
            problem, keep = "; ".join(verdict.problems), int("broken" not in verdict.problems)
            own = label(everything, (part, index))
            writer.writerow((os.path.abspath(path), own, SPLITS[part], problem, verdict.suggested, keep))
    write_atomic(file, text.getvalue().encode(errors="backslashreplace"))
    return True
