"""`python -m serving.decoding.benchmark`: decode images in the threads of one process, and in processes next to it.

N threads take one image after the other, and decode it themselves or hand it to a process each. Both alternate round
after round on the sample photographs as JPEGs of 500 x 375 pixels, 224 pixels for the model. Prints images/s, the CPU
time that this process spends on an image, and the ratio to the threads' images/s in the same round, with hardware,
versions and date. With 1, 2, 4, … threads up to the cores: half a minute on two cores.
"""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from export.benchmark.tables import Cells, as_markdown, as_text
from export.preprocess_benchmark import samples, versions
from models.common.cli import DONE, run
from models.common.errors import HalftoneError
from models.common.files import write_atomic
from models.common.host import cores, host
from models.preprocess import transform
from models.spec import InputSpec
from serving.decoding.pool import Decoders, LoadPixels

PROG = "python -m serving.decoding.benchmark"
HEADINGS: Cells = ("threads", "decoded in", "pictures/s", "lowest", "highest", "this process, µs a picture", "ratio")
THREADS, PROCESSES = "the threads", "a process each"
_SPEC = InputSpec(size=224)


@dataclass(frozen=True, kw_only=True)
class DecodingBenchmark:
    """Compare decoding in threads with decoding in processes."""

    threads: tuple[int, ...] = ()
    """Numbers of threads to try; default: 1, 2, 4, … up to the cores."""

    rounds: int = 3
    """Turns of each of the two."""

    seconds: float = 2.0
    """Length of a turn."""

    output: Path | None = None
    """File to write as well: `.md` for Markdown, `.json` for every figure."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.seconds <= 0 or any(each < 1 for each in self.threads):
            raise HalftoneError("--rounds and --threads must be 1 or more, and --seconds positive")
        if self.output is not None and self.output.suffix not in (".md", ".json"):
            raise HalftoneError(f"--output {self.output} must end in .md or .json")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of threads to try."""
        powers = itertools.takewhile(lambda count: count < cores(), (2**power for power in itertools.count()))
        return self.threads or (*powers, cores())


@dataclass(frozen=True)
class Turn:
    """Result of one turn."""

    rate: float
    """Images/s."""

    own: float
    """Seconds of CPU time of this process for an image."""


def benchmark(config: DecodingBenchmark) -> int:
    """Measure, print and write the results; return the exit code."""
    turns = {count: _turns(config, count) for count in config.counts}
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host()}
    libraries = versions()
    note = ", ".join(f"{name} {number}" for name, number in libraries.items())
    rows = [row for count, ways in turns.items() for row in _rows(count, ways)]
    print(as_text(HEADINGS, rows, about | {"note": note}))
    if config.output is not None:
        figures = {
            count: {way: [asdict(each) for each in results] for way, results in ways.items()}
            for count, ways in turns.items()
        }
        report = json.dumps(about | {"versions": libraries, "turns": figures}, indent=1)
        markdown = as_markdown(HEADINGS, rows, about | {"note": note})
        write_atomic(config.output, ((markdown if config.output.suffix == ".md" else report) + "\n").encode())
    return DONE


def _turns(config: DecodingBenchmark, count: int) -> dict[str, list[Turn]]:
    decoders = Decoders(count)
    images = samples()
    ways: dict[str, LoadPixels] = {THREADS: transform.load, PROCESSES: decoders.load}
    turns: dict[str, list[Turn]] = {way: [] for way in ways}
    try:
        decoders.start()
        for _ in range(config.rounds):
            for way, load in ways.items():
                turns[way].append(_turn(load, images, count, config.seconds))
    finally:
        decoders.close()
    return turns


def _turn(load: LoadPixels, images: Sequence[bytes], threads: int, seconds: float) -> Turn:
    done = [0] * threads
    ready = threading.Barrier(threads + 1)

    def work(index: int) -> None:
        ready.wait()
        while time.monotonic() < end:
            load(images[(index + done[index]) % len(images)], _SPEC)
            done[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    own, start = time.process_time(), time.monotonic()
    end = start + seconds
    ready.wait()
    for worker in workers:
        worker.join()
    count = max(1, sum(done))
    return Turn(rate=count / (time.monotonic() - start), own=(time.process_time() - own) / count)


def _rows(count: int, ways: dict[str, list[Turn]]) -> list[Cells]:
    rows: list[Cells] = []
    for way, turns in ways.items():
        rates = [turn.rate for turn in turns]
        ratio = statistics.median(turn.rate / base.rate for turn, base in zip(turns, ways[THREADS], strict=True))
        own = 1e6 * statistics.median(turn.own for turn in turns)
        figures = (f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f}", f"{max(rates):,.0f}", f"{own:.0f}")
        rows.append((str(count), way, *figures, f"{ratio:.2f}"))
    return rows


if __name__ == "__main__":
    run(benchmark, DecodingBenchmark, prog=PROG, example="--threads 1 2 --output decoding.md")
