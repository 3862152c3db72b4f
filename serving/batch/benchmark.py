"""`python -m serving.batch.benchmark --model NAME --input DIR`: compare offline scoring with the raw runtime.

Both alternate on the same images: first threads of this process decode, fit and run them on all cores, without Ray or
Parquet, then `serving.batch` scores them. Prints images/s of both and the ratio, with hardware, versions and date. For
`serving.batch`, the time from the first image to the last written part counts; the duration of the whole command, which
also starts Ray and the workers (some seconds, for any number of images), is shown next to it. All images are read once
before each measurement. 5,000 images of 500 x 375 pixels take about a minute per turn on two cores.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.benchmark.tables import Cells, as_markdown, as_text
from models.bundle.store import DEFAULT_MODEL, open_bundle
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.host import host
from models.preprocess.errors import ImageError
from models.preprocess.transform import load
from serving.api.upload import DEFAULT_TOP_K
from serving.batch.__main__ import check_installed
from serving.batching.autotune import batch_sizes
from serving.lifecycle.loading import load_fastest
from serving.settings import Settings

PROG = "python -m serving.batch.benchmark"
HEADINGS: Cells = ("way", "images/s", "lowest", "highest", "whole command, s", "ratio")
_LIBRARIES = ("numpy", "openvino", "pillow", "pyarrow", "ray")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Compare `serving.batch` with the raw runtime on the same pictures."""

    input: str
    """Folder of pictures, or its URI."""

    model: str = DEFAULT_MODEL
    """Name of the bundle."""

    rounds: int = 2
    """Turns of each of the two."""

    workers: int = 0
    """Number of processes of `serving.batch`; 0: its default."""

    output: Path | None = None
    """File to write as well: `.md` for Markdown, `.json` for every figure."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.workers < 0:
            raise HalftoneError("--rounds must be 1 or more, and --workers 0 or more")
        if self.output is not None and self.output.suffix not in (".md", ".json"):
            raise HalftoneError(f"--output {self.output} must end in .md or .json")


def benchmark(config: BenchmarkConfig) -> int:
    """Measure, print and write the results; return the exit code."""
    check_installed()
    settings = replace(Settings.from_environment(), model=config.model)
    settings = replace(settings, variant=load_fastest(config.model, settings).record.variant)
    turns = [(_measure_raw(settings, config.input), _measure_batch(settings, config)) for _ in range(config.rounds)]
    raw, batch = [turn[0] for turn in turns], [turn[1] for turn in turns]
    ratio = statistics.median(of_batch["rate"] / of_raw["rate"] for of_raw, of_batch in turns)
    report: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
        "model": config.model,
        "variant": settings.variant,
        "pictures": raw[0]["pictures"],
        "raw": raw,
        "batch": batch,
        "ratio": ratio,
    }
    rows = [_cells("raw runtime, threads", raw, 1.0), _cells("serving.batch, Ray", batch, ratio)]
    about = {name: report[name] for name in ("date", "host")}
    print(as_text(HEADINGS, rows, about))
    print(_conditions(report))
    if config.output is not None:
        markdown = config.output.suffix == ".md"
        table = f"{as_markdown(HEADINGS, rows, about)}\n{_conditions(report)}"
        text = table if markdown else json.dumps(report, indent=1)
        write_atomic(config.output, (text + "\n").encode())
    return DONE


def _conditions(report: dict[str, Any]) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    return f"{report['pictures']} pictures, {report['model']} {report['variant']}; {libraries}"


def _measure_raw(settings: Settings, location: str) -> dict[str, float]:
    """Decode, fit and run all images with as many threads as cores, in batches of the size that serving chooses."""
    from serving.batch.inputs import Pictures

    loaded = load_fastest(settings.model, settings)
    size = batch_sizes(settings.model, loaded.runtime, settings)[1].best(settings.queue)
    spec, pictures = loaded.bundle.manifest.input, Pictures(location)
    names, _ = pictures.listed()
    for name in names:
        pictures.read(name, settings.max_body)

    def work(batch: list[str]) -> None:
        pixels = []
        for name in batch:
            try:
                pixels.append(load(pictures.read(name, settings.max_body), spec, max_pixels=settings.max_pixels))
            except ImageError:
                continue
        if pixels:
            loaded.runtime.run(np.stack(pixels))

    batches = [names[place : place + size] for place in range(0, len(names), size)]
    start = time.monotonic()
    with ThreadPoolExecutor(settings.worker_threads) as pool:
        for _ in pool.map(work, batches):
            pass
    seconds = time.monotonic() - start
    return {"pictures": len(names), "seconds": seconds, "rate": len(names) / seconds}


def _measure_batch(settings: Settings, config: BenchmarkConfig) -> dict[str, float]:
    from serving.batch.run import Result, score

    with tempfile.TemporaryDirectory() as folder:
        result = score(
            settings,
            location=config.input,
            output=f"{folder}/rows.parquet",
            top_k=min(DEFAULT_TOP_K, len(open_bundle(settings.model).manifest.labels)),
            progress=lambda done, total: None,
            workers=config.workers,
        )
    assert isinstance(result, Result)
    pictures = result.job.pictures
    return {"pictures": pictures, "seconds": result.seconds, "rate": pictures / result.scoring_seconds}


def _cells(name: str, turns: list[dict[str, float]], ratio: float) -> Cells:
    rates = [turn["rate"] for turn in turns]
    seconds = statistics.median(turn["seconds"] for turn in turns)
    middle = statistics.median(rates)
    return (name, f"{middle:.1f}", f"{min(rates):.1f}", f"{max(rates):.1f}", f"{seconds:.1f}", f"{ratio:.3f}")


if __name__ == "__main__":
    run(benchmark, BenchmarkConfig, prog=PROG, example="--model photos --input photos")
