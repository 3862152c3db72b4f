"""`python -m training.data.review`: pictures that a server has collected, to a labelling tool and back as a table.

    python -m training.data.review --from collected --to review/tasks.json
    python -m training.data.review --from review/export.json --to review/labels.csv

The first writes tasks for Label Studio in the order that teaches most, with the model's answers as suggestions, the
interface `tasks.xml`, and copies of the pictures. The second reads what was exported from Label Studio or CVAT. 200
tasks out of 10,000 pictures take half a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.common.cli import DONE, JsonOutput, publish, run
from models.common.errors import HalftoneError
from models.common.files import check_writable
from models.common.text import printable
from training.data.review.exports import SUFFIXES, read_votes
from training.data.review.table import decide, write_labels
from training.data.review.tasks import PICTURES, write_tasks

PROG = "python -m training.data.review"
NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ReviewConfig(JsonOutput):
    """Collected pictures as tasks for Label Studio, and its or CVAT's export as a table for `training --add`."""

    from_: Annotated[Path, tyro.conf.arg(name="from")]
    """Folder of collected pictures; or an export: JSON of Label Studio, XML of `CVAT for images`, or a ZIP of these."""

    to: Path
    """From a folder: the tasks, `.json`. From an export: the table, `.csv`."""

    most: int = 200
    """Most tasks."""

    def __post_init__(self) -> None:
        if self.most < 1:
            raise HalftoneError(f"--most must be 1 or more, not {self.most}")
        check_writable(self.to, "--to")


def _check(config: ReviewConfig) -> None:
    """Refuse what can't be read, and a name of the output that tools would take for something else."""
    folder = config.from_.is_dir()
    if not folder and (not config.from_.exists() or config.from_.suffix.lower() not in SUFFIXES):
        raise HalftoneError(
            f"--from {config.from_} is neither a folder nor an export ({', '.join(SUFFIXES)}): name the folder of "
            "HALFTONE_COLLECT, or what a labelling tool exported"
        )
    wanted = ".json" if folder else ".csv"
    if config.to.suffix.lower() != wanted:
        raise HalftoneError(f"--to {config.to} must end in {wanted} for --from {config.from_}")


def _tasks(config: ReviewConfig) -> None:
    written = write_tasks(config.from_, config.to, most=config.most)
    publish({"tasks": written.tasks, "collected": written.collected, "labels": list(written.labels)})
    folder = printable(config.to.parent.absolute())
    print(f"wrote {written.tasks:,} tasks of {written.collected:,} collected pictures, {len(written.labels)} classes")
    print(
        f"start Label Studio with LOCAL_FILES_SERVING_ENABLED=true LOCAL_FILES_DOCUMENT_ROOT={folder}; make a project "
        f"with the interface {printable(config.to.with_suffix('.xml').name)}, add the storage {folder}/{PICTURES} "
        f"without syncing it, import {printable(config.to.name)}, and export as JSON"
    )


def _labels(config: ReviewConfig) -> None:
    decided, split = decide(read_votes(config.from_))
    right = write_labels(config.to, decided, near=config.from_.parent)
    publish({"labels": len(decided), "undecided": split, "model_was_right": right})
    print(f"wrote {len(decided):,} labels to {printable(config.to)}")
    if right is not None:
        print(f"the model had been right on {right:,} of them")
    if split:
        named = ", ".join(printable(name) for name in split[:NAMED])
        print(f"left out, because annotators disagree: {len(split):,}, such as {named}")
    print(f"train with them: `python -m training --data DIR --add {printable(config.to)} --from NAME --output …`")


def _main(config: ReviewConfig) -> int:
    _check(config)
    (_tasks if config.from_.is_dir() else _labels)(config)
    return DONE


if __name__ == "__main__":
    run(_main, ReviewConfig, prog=PROG, example="--from collected --to review/tasks.json")
