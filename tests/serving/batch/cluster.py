"""Offline scoring on a Ray cluster of this machine, whose nodes come and go: `python -m tests.serving.batch.cluster`.

    python -m tests.serving.batch.cluster --pictures 5000     as much as counts; some minutes on two cores

Three nodes of one thread each score crops of the sample photographs. After a quarter of the chunks one node is killed,
after half of them one joins. Then one machine scores the same, and both outputs are compared: every path once, equal
answers. A node's own rate is that of its workers while they score; the rate of the whole is compared with the sum of
those of the nodes, each for the time that it was there. At last one node alone, and two at once,
score the same in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pyarrow.parquet as pq

from serving.batch.run import Result, score
from serving.batch.schedule import ScoredChunk
from serving.settings import Settings
from tests.servers import ROOT, environment, free_port, kill

SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    # A node listens on every interface; the token keeps other users and machines out.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


TURNS = 2


class Cluster:
    """Ray nodes on 127.0.0.1, each a process group of its own.

    Args:
        folder: for files of Ray and for the nodes' bundles; its path must be short.
    """

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._folder = folder

    def add(self, cpus: int = 1, *, head: bool = False) -> None:
        """Start a node and wait until Ray says that it runs."""
        place = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard", "false"]
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--node-ip-address", "127.0.0.1",
            "--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", str(100 * 2**20),
            *(["--temp-dir", str(self._folder)] if head else ["--address", self.address]),
            *(place if head else []),
        ]  # fmt: skip
        log = (self._folder / f"node-{len(self.nodes)}").open("wb")
        # No folder of bundles: what a node scores with comes from the driver.
        variables = environment(Path(os.devnull), **SETTINGS, TMPDIR=str(self._folder))
        with log:
            node = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        end = time.monotonic() + 60
        while b"Ray runtime started" not in Path(log.name).read_bytes():
            assert node.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < end, Path(log.name).read_text()
            time.sleep(0.05)

    def remove(self, number: int) -> None:
        """Kill a node with everything that runs on it."""
        kill(self.nodes[number])


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """Start a head without cores, which only coordinates, and nodes of one core each."""
    temporary = tempfile.TemporaryDirectory(prefix="ht-", dir="/tmp", ignore_cleanup_errors=True)
    with temporary as folder, mock.patch.dict(os.environ, SETTINGS):
        running = Cluster(Path(folder))
        try:
            running.add(0, head=True)
            for _ in range(nodes):
                running.add()
            yield running
        finally:
            for node in reversed(running.nodes):
                kill(node)


def recorded(actions: dict[int, Callable[[], None]]) -> tuple[list[ScoredChunk], Callable[..., Iterator[object]]]:
    """Return a list that fills with the scored chunks, and `score_chunks` that carries out actions between them.

    Args:
        actions: number of scored chunks to what happens then.
    """
    from serving.batch.ray_executor import score_chunks

    chunks: list[ScoredChunk] = []

    def recording(*arguments: object) -> Iterator[object]:
        for event in score_chunks(*arguments):  # type: ignore[arg-type]
            if isinstance(event, ScoredChunk):
                chunks.append(event)
                actions.get(len(chunks), lambda: None)()
            yield event

    return chunks, recording


def share_of_sum(chunks: list[ScoredChunk], lost: dict[str, float]) -> float:
    """Return the rate of the whole by the sum of the nodes' own rates, each for the time that the node was there.

    Args:
        chunks: what was scored.
        lost: name of each killed node to its end, in monotonic seconds.
    """
    end = max(chunk.ended for chunk in chunks)
    possible = 0.0
    for its in by_node(chunks):
        busy = sum(chunk.ended - chunk.started for chunk in its)
        there = lost.get(its[0].node, end) - its[0].started
        possible += sum(chunk.rows for chunk in its) / busy * there
    return sum(chunk.rows for chunk in chunks) / possible


def main(pictures: int) -> None:
    """Score on the cluster and on one machine; print the figures."""
    from tests.serving.batch.test_interrupted_run import crops

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        names = crops(root / "pictures", pictures)
        changing(root, names)
        at_once(root)


def changing(root: Path, names: list[str]) -> None:
    """Compare a cluster whose nodes come and go with one machine."""
    from serving.batch import run

    pictures = len(names)
    lost: dict[str, float] = {}
    with cluster(3) as nodes:

        def end_one() -> None:
            nodes.remove(1)
            lost["killed"] = time.monotonic()

        total = -(-pictures // max(16, min(1024, pictures // 64)))
        actions = {total // 4: end_one, total // 2: nodes.add}
        chunks, run.score_chunks = recorded(actions)  # type: ignore[assignment]
        result = scored(root, "cluster", nodes.address)
    _, run.score_chunks = recorded({})  # type: ignore[assignment]
    alone = scored(root, "alone")
    ours, theirs = (pq.read_table(root / f"{each}.parquet").to_pylist() for each in ("cluster", "alone"))
    killed = min({chunk.node for chunk in chunks}, key=lambda node: max(c.ended for c in chunks if c.node == node))
    ratio = share_of_sum(chunks, {killed: lost["killed"]})
    equal = sum(one["labels"] == two["labels"] for one, two in zip(ours, theirs, strict=True))
    print(f"every path once: {[row['path'] for row in ours] == names}")
    print(f"{equal} of {pictures} answers equal those of one machine")
    for node, (count, variant) in result.nodes.items():
        print(f"  {count} on {node} by {variant}{', killed' * (node == killed)}")
    print(f"{pictures / result.scoring_seconds:.1f} images/s; one machine {pictures / alone.scoring_seconds:.1f}")
    print(f"rate by the sum of the nodes' while they score: {ratio:.3f}")


def at_once(root: Path) -> None:
    """Compare two nodes at once, a core each, with the sum of what each does while the other core is idle."""
    from serving.batch import run

    rates: dict[int, list[float]] = defaultdict(list)
    for turn in range(TURNS):
        for count in (1, 2):
            with cluster(count) as nodes:
                chunks, run.score_chunks = recorded({})  # type: ignore[assignment]
                scored(root, f"{count}-{turn}", nodes.address)
            rates[count].append(rate(chunks))
    one, two = (max(rates[count]) for count in (1, 2))
    print(f"two nodes at once: {two:.1f} images/s; one alone: {one:.1f} (best of {TURNS} turns)")
    print(f"rate by the sum of the nodes' alone: {two / (2 * one):.3f}")


def rate(chunks: list[ScoredChunk]) -> float:
    """Return the images per second of all nodes, each from its first chunk on: one may start seconds later."""
    end = max(chunk.ended for chunk in chunks)
    return sum(sum(each.rows for each in its) / (end - its[0].started) for its in by_node(chunks))


def by_node(chunks: list[ScoredChunk]) -> list[list[ScoredChunk]]:
    """Return the chunks of each node, in their order."""
    found: dict[str, list[ScoredChunk]] = defaultdict(list)
    for chunk in chunks:
        found[chunk.node].append(chunk)
    return list(found.values())


def scored(root: Path, name: str, address: str = "") -> Result:
    """Score the pictures of a folder."""
    result = score(
        replace(Settings.from_environment(), threads=0), location=str(root / "pictures"),
        output=str(root / f"{name}.parquet"), top_k=3, progress=lambda done, total: None, ray_address=address,
    )  # fmt: skip
    assert isinstance(result, Result)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    main(parser.parse_args().pictures)
