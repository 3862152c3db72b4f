"""Table of the labels that annotators agree on, which `python -m training --add` reads."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.preprocess.collected import read_answer
from training.config.columns import REVIEWED
from training.data.review.exports import Vote
from training.data.review.tasks import PICTURES


@dataclass(frozen=True, kw_only=True)
class Decided:
    """Label of a picture."""

    picture: str
    label: str

    annotators: tuple[str, ...]

    agreement: float
    """Share of the annotators who chose this label, over 0.5 to 1."""


def decide(votes: Iterable[Vote]) -> tuple[list[Decided], list[str]]:
    """Return the label of each picture that most annotators chose, and the pictures without such a label."""
    by_picture: dict[str, dict[str, str]] = defaultdict(dict)
    for vote in votes:
        # Who labels a picture again corrects the earlier label.
        by_picture[vote.picture][vote.annotator] = vote.label
    decided, split = [], []
    for picture, labels in by_picture.items():
        label, count = Counter(labels.values()).most_common(1)[0]
        if 2 * count <= len(labels):
            split.append(picture)
            continue
        decided.append(
            Decided(picture=picture, label=label, annotators=tuple(sorted(labels)), agreement=count / len(labels))
        )
    return decided, split


def write_labels(file: Path, decided: Iterable[Decided], *, near: Path) -> int | None:
    """Write the table; every picture is for training.

    Args:
        file: CSV with the columns `REVIEWED`; the paths are relative to its folder.
        decided: the labels.
        near: folder of the export, in which pictures are looked for too.

    Returns:
        Number of pictures of which the server that collected them answered this label; None if none was collected.

    Raises:
        HalftoneError: a picture is neither beside the table nor beside the export.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(REVIEWED)
    right: list[bool] = []
    for each in decided:
        path = _found(each.picture, (file.parent, near))
        relative = os.path.relpath(path.absolute(), file.parent.absolute())
        writer.writerow((relative, each.label, "train", ";".join(each.annotators), round(each.agreement, 3)))
        right += [answered == each.label for answered in _answered(path)]
    write_atomic(file, text.getvalue().encode())
    return sum(right) if right else None


def _found(picture: str, folders: Iterable[Path]) -> Path:
    """Return the file of a picture; tools may leave out the folder that they were given."""
    tried = [folder / part / picture.lstrip("/") for folder in folders for part in ("", PICTURES)]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise HalftoneError(
            f"the picture {picture} is not in {tried[0].parent}: put the export, or --to, beside the folder "
            f"{PICTURES} of the tasks"
        )
    return found


def _answered(path: Path) -> Iterator[str]:
    try:
        yield read_answer(path).predictions[0][0]
    except HalftoneError:
        # A picture from elsewhere, which the tool was given as well.
        return
