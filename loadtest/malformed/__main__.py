"""`python -m loadtest.malformed`: thousands of malformed image files, alone and mixed with valid ones, and bombs.

Starts `bentoml serve` on a free port of 127.0.0.1 and posts mutations of real JPEG, PNG and WebP files (and the files
of `--images`, such as the images of Pillow's own tests): first alone, then each with seven valid images in flight. No
response may be a 5xx or take over a second, the service must survive and grow by less than 50 MiB, and the predictions
for the valid images must not change. Then one request of each kind that is built to be expensive
(`loadtest.malformed.bombs`), with a client beside it that wants the valid picture: none may take over 2 s and 500 MiB,
or let the other client wait for longer. 5,000 files take about 1 minute, and the bombs another one. Exit code 1 if a
goal is missed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any

from loadtest.client.blocking import SyncClient
from loadtest.client.http1 import encode_request
from loadtest.malformed.attack import Cost, attack, usual_seconds
from loadtest.malformed.bombs import Limits
from loadtest.malformed.mutations import malformed_files, valid_files
from loadtest.reporting.cli import PHOTOS, CompareError, JsonOutput, check_least, check_picture, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import Server, started
from loadtest.servers.process import process_tree, resident_mib

VALID_PER_MALFORMED = 7
WARM_UP = 300
BOUNDARY = "malformed-files"
MAX_SECONDS, MAX_MIB = 2.0, 500
"""The most that one request may cost."""


@dataclass(frozen=True, kw_only=True)
class Malformed(JsonOutput):
    """Post malformed picture files."""

    count: int = 5000
    """Number of malformed files that are sent alone."""

    rounds: int = 250
    """Number of rounds of one malformed and seven valid files at once."""

    photo: Path = PHOTOS / "cat.jpg"
    """Source of the mutations, and the valid picture."""

    images: Path | None = None
    """Folder of additional files, sent as they are and mutated."""

    seed: int = 1
    """Seed of the mutations."""

    bomb_megapixels: float = 49.0
    """Pixels of the largest bombs, in millions."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_least(self, 1, "count")
        check_least(self, 0, "rounds")
        if not 0.01 <= self.bomb_megapixels <= 49:
            raise CompareError(f"--bomb-megapixels must be 0.01 to 49, not {self.bomb_megapixels}")
        check_picture(self.photo, "--photo")


@dataclass(frozen=True)
class Reply:
    """One response."""

    status: int
    """HTTP status; 0: the connection broke."""

    seconds: float
    """Seconds from sending to the end of the response."""

    body: bytes


class Client:
    """Client that posts images; every thread has its own connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._thread = local()

    def post(self, picture: bytes, *, form: bool = False) -> Reply:
        """Post one image, as the body or as a form."""
        head = {"Content-Type": "image/jpeg"}
        if form:
            head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
            start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            picture = start.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
        begin = time.monotonic()
        try:
            request = encode_request("POST", "/classify", picture, host="127.0.0.1", headers=head)
            response = self._client().request(request)
            return Reply(response.status, time.monotonic() - begin, response.body)
        except OSError:
            return Reply(0, time.monotonic() - begin, b"")

    def _client(self) -> SyncClient:
        client: SyncClient | None = getattr(self._thread, "client", None)
        if client is None:
            client = self._thread.client = SyncClient(self._port, timeout=60)
        return client


def main(config: Malformed) -> int:
    """Measure and report; return the exit code."""
    valid, bases = config.photo.read_bytes(), valid_files(config.photo)
    with started(HALFTONE_LOG_REQUESTS="0") as server:
        variant = server.first_answer(valid)["variant"]
        client = Client(server.port)
        malformed = malformed_files(bases, config.images, config.count, config.seed)
        alone, growth = _post_alone(server, client, malformed, malformed_files(bases, None, WARM_UP, 0))
        malformed = malformed_files(bases, None, config.rounds, config.seed + 1)
        mixed, wrong = _post_mixed(client, malformed, valid)
        # On a new connection: the service has closed the old one, which was idle for too long.
        alive = server.process.poll() is None and Client(server.port).post(valid).status == 200
        usual = usual_seconds(server.port, valid)
        costs = attack(server, valid, Limits(pixels=round((config.bomb_megapixels * 1e6) ** 0.5) ** 2))
        alive &= server.process.poll() is None and Client(server.port).post(valid).status == 200
    setting = {"variant": variant, "seed": config.seed, "additional files": config.images is not None}
    figures = [
        *_figures(config, alone, mixed, growth),
        Figure(
            "valid files that failed or differed", wrong, f"0 of {VALID_PER_MALFORMED * config.rounds:,}", not wrong
        ),
        *bomb_figures(costs, usual),
        Figure("serves at the end", alive, "yes", alive),
    ]
    return Findings("Malformed picture files", figures, setting).report(config.output)


def _figures(config: Malformed, alone: Sequence[Reply], mixed: Sequence[Reply], growth: float) -> list[Figure]:
    replies = [*alone, *mixed]
    lost = sum(reply.status == 0 for reply in replies)
    failed = sum(reply.status >= 500 for reply in replies)
    slowest = max(reply.seconds for reply in alone)
    counts = dict(sorted(Counter(reply.status for reply in replies).items()))
    return [
        Figure("malformed files", len(replies), f"at least {config.count:,}", len(alone) >= config.count),
        Figure("responses by status", counts),
        Figure("lost connections", lost, "0", not lost),
        Figure("5xx responses", failed, "0", not failed),
        Figure("slowest response, s", round(slowest, 3), "below 1", slowest < 1),
        Figure("growth of memory, MiB", round(growth, 1), "below 50", growth < 50),
    ]


def bomb_figures(costs: Sequence[Cost], usual: float) -> list[Figure]:
    """Return what each kind cost, and what the other client saw at worst."""
    figures = []
    for cost in costs:
        text = f"{cost.status or 'closed'}, {cost.seconds:.2f} s, {cost.mib:.0f} MiB, others {cost.worst:.2f} s"
        holds = cost.seconds < MAX_SECONDS and cost.mib < MAX_MIB and cost.worst < MAX_SECONDS + usual
        figures.append(Figure(f"bomb: {cost.kind}", text, f"below {MAX_SECONDS:g} s, {MAX_MIB} MiB", holds))
    failed = sum(cost.failed for cost in costs)
    sent = sum(len(cost.others) for cost in costs)
    figures.append(Figure("requests of others that failed meanwhile", failed, f"0 of {sent:,}", not failed))
    figures.append(Figure("their usual time alone, s", round(usual, 3)))
    return figures


def _post_alone(
    server: Server, client: Client, files: Iterable[bytes], warm_up: Iterable[bytes]
) -> tuple[list[Reply], float]:
    """Post files one by one; return the replies, and the growth of the service in MiB after the warm-up."""
    with ThreadPoolExecutor(1) as pool:
        list(pool.map(client.post, warm_up))
        before = _resident_mib(server)
        replies = list(pool.map(lambda each: client.post(each[1], form=each[0] % 2 == 1), enumerate(files)))
        return replies, _resident_mib(server) - before


def _post_mixed(client: Client, files: Iterable[bytes], valid: bytes) -> tuple[list[Reply], int]:
    """Post each file with valid ones in flight; return its replies, and the number of wrong replies to valid files."""
    expected = _predictions(client.post(valid))
    replies, wrong = [], 0
    with ThreadPoolExecutor(VALID_PER_MALFORMED + 1) as pool:
        for file in files:
            reply = pool.submit(client.post, file)
            others = list(pool.map(client.post, [valid] * VALID_PER_MALFORMED))
            wrong += sum(_predictions(other) != expected for other in others)
            replies.append(reply.result())
    return replies, wrong


def _predictions(reply: Reply) -> Any:
    return json.loads(reply.body)["predictions"] if reply.status == 200 else reply.status


def _resident_mib(server: Server) -> float:
    """Return the resident MiB of all processes of the service, after a second in which they release memory."""
    time.sleep(1)
    return resident_mib(process_tree(server.process.pid))


if __name__ == "__main__":
    run(main, Malformed, prog="python -m loadtest.malformed", example="--count 1000")
