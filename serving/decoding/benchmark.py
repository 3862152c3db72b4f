"""`python -m serving.decoding.benchmark`: decoding in the threads of one process, and in processes beside it.

So many threads, each with one picture after the other: they decode it themselves, or hand it to a process each. Takes
turns round after round on the sample photographs as JPEGs of 500 x 375 pixels, 224 pixels for the model. Prints
pictures/s, the processor time that this process itself spends on a picture, and the ratio to the threads' pictures/s in
the same round, with hardware, versions and date. With 1, 2, 4, … threads up to the cores: half a minute for two cores.
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
from models.preprocess import transform as preprocess
from models.spec import InputSpec
from serving.decoding.pool import Decoders, Load

PROG = "python -m serving.decoding.benchmark"
HEADINGS: Cells = ("threads", "decoded in", "pictures/s", "lowest", "highest", "this process, µs a picture", "ratio")
THREADS, PROCESSES = "the threads", "a process each"
_SPEC = InputSpec(size=224)


@dataclass(frozen=True, kw_only=True)
class DecodingBenchmark:
    """Compare the two places where pictures can be decoded."""

    threads: tuple[int, ...] = ()
    """Numbers of threads to try; default: 1, 2, 4, … up to the cores."""

    rounds: int = 3
    """How often each has its turn."""

    seconds: float = 2.0
    """Length of a turn."""

    output: Path | None = None
    """File besides: `.md` for Markdown, `.json` for every figure."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.seconds <= 0 or any(each < 1 for each in self.threads):
            raise HalftoneError("--rounds and --threads must be 1 or more, and --seconds positive")
        if self.output is not None and self.output.suffix not in (".md", ".json"):
            raise HalftoneError(f"--output {self.output} must end in .md or .json")

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of threads to try."""
        powers = itertools.takewhile(lambda count: count < cores(), (2**power for power in itertools.count()))
        return self.threads or (*powers, cores())


@dataclass(frozen=True)
class Turn:
    """What one turn came to."""

    rate: float
    """Pictures/s."""

    own: float
    """Seconds of processor time of this process for a picture."""


def benchmark(config: DecodingBenchmark) -> int:
    """Measure, print and write; returns the exit code."""
    turns = {count: _turns(config, count) for count in config.counts}
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "host": host()}
    libraries = versions()
    note = ", ".join(f"{name} {number}" for name, number in libraries.items())
    rows = [row for count, ways in turns.items() for row in _rows(count, ways)]
    print(as_text(HEADINGS, rows, about | {"note": note}))
    if config.output is not None:
        figures = {
            count: {way: [asdict(each) for each in got] for way, got in ways.items()} for count, ways in turns.items()
        }
        report = json.dumps(about | {"versions": libraries, "turns": figures}, indent=1)
        markdown = as_markdown(HEADINGS, rows, about | {"note": note})
        write_atomic(config.output, ((markdown if config.output.suffix == ".md" else report) + "\n").encode())
    return DONE


def _turns(config: DecodingBenchmark, count: int) -> dict[str, list[Turn]]:
    decoders = Decoders(count)
    pictures = samples()
    ways: dict[str, Load] = {THREADS: preprocess.load, PROCESSES: decoders.load}
    turns: dict[str, list[Turn]] = {way: [] for way in ways}
    try:
        decoders.start()
        for _ in range(config.rounds):
            for way, load in ways.items():
                turns[way].append(_turn(load, pictures, count, config.seconds))
    finally:
        decoders.close()
    return turns


def _turn(load: Load, pictures: Sequence[bytes], threads: int, seconds: float) -> Turn:
    done = [0] * threads
    begin = threading.Barrier(threads + 1)

    def work(place: int) -> None:
        begin.wait()
        while time.monotonic() < end:
            load(pictures[(place + done[place]) % len(pictures)], _SPEC)
            done[place] += 1

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    own, start = time.process_time(), time.monotonic()
    end = start + seconds
    begin.wait()
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
    run(benchmark, DecodingBenchmark, prog=PROG)
