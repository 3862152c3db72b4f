"""`python -m serving.batch --model NAME --input DIR --output FILE.parquet`: classify a folder of any size, offline.

    python -m serving.batch --model efficientnet_lite0 --input photos --output labels.parquet
    python -m serving.batch --model efficientnet_lite0 --input s3://bucket/photos --output labels.parquet --workers 8
    python -m serving.batch --input s3://bucket/photos --output s3://bucket/labels.parquet --ray-address auto

One row per image: `path`, `labels`, `indices`, `probabilities`, `error_code`, `error`, `model`, `version`, `variant`.
The same command again resumes a run that was killed, and does nothing if all is done. Needs the extra `batch` (Ray).
Takes about ten seconds to start, then runs as fast as the model on all cores, or on all nodes of a cluster. Exit code
0, even if some images have errors; 1 if none could be classified. The service's HALFTONE_* limits and variant apply
here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from models.bundle.store import DEFAULT_MODEL
from models.common.cli import ANSWER_IS_NO, DONE, run
from models.common.errors import HalftoneError
from models.common.files import check_length, check_writable
from models.common.text import printable
from serving.api.upload import DEFAULT_TOP_K
from serving.settings import Settings

PROG = "python -m serving.batch"
NAMED = 5
_ADDRESS = re.compile(r"auto|(ray://)?[^/\s]+:\d+")


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Classify every picture of a folder or bucket into a Parquet file; run it again to resume it."""

    input: str
    """Folder of pictures, searched to any depth, or its URI such as s3://bucket/photos."""

    output: str
    """Parquet file to write, or its URI such as s3://bucket/labels.parquet; OUTPUT.parts next to it holds the finished
    parts meanwhile."""

    model: str = DEFAULT_MODEL
    """Name of the bundle."""

    top_k: int = DEFAULT_TOP_K
    """Classes in each row."""

    workers: int = 0
    """Number of processes, which share the cores; 0: two, or one per four cores on larger machines. On a cluster it is
    that of each node."""

    ray_address: str = ""
    """Existing Ray cluster to run on: `auto`, HOST:PORT or ray://HOST:PORT; empty: this machine alone."""

    def __post_init__(self) -> None:
        if not self.output.endswith(".parquet"):
            raise HalftoneError(f"--output {self.output} must end in .parquet")
        if "://" not in self.output:
            check_length(Path(self.output), "--output")
            check_writable(Path(self.output), "--output")
        if self.top_k < 1:
            raise HalftoneError(f"--top-k must be at least 1, not {self.top_k}")
        if self.workers < 0:
            raise HalftoneError(f"--workers must be 0 or more, not {self.workers}")
        if self.ray_address and not _ADDRESS.fullmatch(self.ray_address):
            raise HalftoneError(f"--ray-address {self.ray_address} must be auto, HOST:PORT or ray://HOST:PORT")


def check_installed() -> None:
    """Raise HalftoneError if a library that offline scoring needs isn't installed."""
    missing = [name for name in ("pyarrow", "ray") if find_spec(name) is None]
    if missing:
        raise HalftoneError(
            f"offline scoring needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed: `pip install '.[batch]'` in the checkout"
        )


def batch(config: BatchConfig) -> int:
    """Score and report; return the exit code."""
    check_installed()
    from serving.batch.run import Result, score

    console = Console(stderr=True)
    settings = replace(Settings.from_environment(), model=config.model)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("classifying", total=None)
        result = score(
            settings,
            location=config.input,
            output=config.output,
            top_k=config.top_k,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            workers=config.workers,
            ray_address=config.ray_address,
        )
    if not isinstance(result, Result):
        print(
            f"{printable(config.output)} holds all {result.pictures} pictures already: remove it to classify them again"
        )
        return DONE
    _report(result, config.output)
    return ANSWER_IS_NO if sum(result.errors.values()) == result.job.pictures else DONE


def _report(result: object, output: str) -> None:
    from serving.batch.run import Result

    assert isinstance(result, Result)
    job = result.job
    new = job.pictures - result.kept
    spent = result.scoring_seconds
    rate = f" in {spent:.3f} s, {new / spent:.1f} images/s" if spent else ""
    print(f"{job.pictures} pictures in {printable(output)}: {new} now{rate}, {result.kept} before")
    print(f"{result.seconds:.1f} s with choosing the variant, starting the workers and merging their parts")
    print(f"{job.model} {job.version} ({job.variant})")
    for node, (count, variant) in sorted(result.nodes.items()):
        print(f"  {count} on {printable(node)} by {variant}")
    for each in result.refused:
        print(f"  node {each.node} can't score: {printable(each.reason)}")
    for code, count in result.errors.items():
        print(f"  {count} x {code}: see the column `error`")
    if result.left_out:
        some = ", ".join(map(printable, result.left_out[:NAMED])) + (", …" if len(result.left_out) > NAMED else "")
        print(f"  {len(result.left_out)} files are left out because they are no pictures: {some}")
    if result.added:
        print(f"  {result.added} pictures were added after the run started and are not in it: use another output")


if __name__ == "__main__":
    run(batch, BatchConfig, prog=PROG, example="--input photos --output predictions.parquet --model photos")
