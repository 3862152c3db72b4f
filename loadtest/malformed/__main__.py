"""`python -m loadtest.malformed`: thousands of broken and odd picture files, alone and among good ones.

Starts `bentoml serve` on a free port of 127.0.0.1 and posts mutations of real JPEG, PNG and WebP files (and whatever
`--images` holds, such as the pictures of Pillow's own tests), first by themselves, then one with seven good pictures in
flight. No answer may be a 5xx or take over a second, the process must live and not grow by 50 MiB, and the good
pictures must be answered as ever. 5,000 files take about 1 minute. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any

import psutil
import tyro

from loadtest.malformed.mutations import odd_files, sources
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import Server, started

MIB = 2**20
GOOD_PER_ODD = 7
WARM_UP = 300
BOUNDARY = "odd-files"


@dataclass(frozen=True, kw_only=True)
class Malformed:
    """Post broken and odd picture files."""

    count: int = 5000
    """Files by themselves."""

    rounds: int = 250
    """Rounds of one odd file and seven good ones at once."""

    photo: Path = Path("export/photos/cat.jpg")
    """What the mutations are made from, and the good picture."""

    images: Path | None = None
    """Folder of further odd pictures."""

    seed: int = 1
    """Of the mutations."""

    output: Path | None = None
    """Path without ending for the figures as .json and .md, besides what is printed."""


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    """HTTP status; 0: the connection broke."""

    seconds: float
    """From sending to the end of the answer."""

    body: bytes
    """As it came."""


class Client:
    """Posts pictures; every thread has a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mine = local()

    def post(self, picture: bytes, *, form: bool = False) -> Reply:
        """Post one, as the body or as a form."""
        head = {"Content-Type": "image/jpeg"}
        if form:
            head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
            start = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            picture = start.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
        begin = time.monotonic()
        try:
            connection = self._connection()
            connection.request("POST", "/classify", picture, head)
            response = connection.getresponse()
            body = response.read()
            return Reply(response.status, time.monotonic() - begin, body)
        except (OSError, http.client.HTTPException):
            self._mine.connection = None
            return Reply(0, time.monotonic() - begin, b"")

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            self._mine.connection = connection
        return connection


def main(config: Malformed) -> int:
    """Post and print; returns the exit code."""
    if not config.photo.is_file() or config.count < 1 or config.rounds < 0:
        print(f"error: --photo {config.photo} must be a picture, --count 1 or more", file=sys.stderr)
        return 2
    good, sound = config.photo.read_bytes(), sources(config.photo)
    with started(HALFTONE_LOG_REQUESTS="0") as server:
        variant = server.first_answer(good)["variant"]
        client = Client(server.port)
        alone, grown = _alone(server, client, odd_files(sound, config.images, config.count, config.seed), sound)
        odd = list(odd_files(sound, None, config.rounds, config.seed + 1))
        mixed, wrong = _mixed(client, odd, good)
        # Over a new connection: the old one has been idle for longer than the service keeps it.
        alive = server.process.poll() is None and Client(server.port).post(good).status == 200
    setting = {"variant": variant, "seed": config.seed, "further pictures": config.images is not None}
    figures = [
        *_figures(config, alone, mixed, grown),
        Figure("good answers that failed or differed", wrong, f"0 of {GOOD_PER_ODD * config.rounds:,}", not wrong),
        Figure("answers as before at the end", alive, "yes", alive),
    ]
    return Findings("Broken and odd picture files", figures, setting).report(config.output)


def _figures(config: Malformed, alone: Sequence[Reply], mixed: Sequence[Reply], grown: float) -> list[Figure]:
    replies = [*alone, *mixed]
    broken = sum(reply.status == 0 for reply in replies)
    failed = sum(reply.status >= 500 for reply in replies)
    slowest = max(reply.seconds for reply in alone)
    counts = dict(sorted(Counter(reply.status for reply in replies).items()))
    return [
        Figure("odd files", len(replies), f"at least {config.count:,}", len(alone) >= config.count),
        Figure("answers by status", counts),
        Figure("connections broken", broken, "0", not broken),
        Figure("answers of 5xx", failed, "0", not failed),
        Figure("slowest answer, s", round(slowest, 3), "below 1", slowest < 1),
        Figure("growth of memory, MiB", round(grown, 1), "below 50", grown < 50),
    ]


def _alone(server: Server, client: Client, files: Iterable[bytes], sound: Sequence[bytes]) -> tuple[list[Reply], float]:
    """The replies to odd files one by one, and by how many MiB the service grew meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        warm = odd_files(sound, None, WARM_UP, 0)
        list(pool.map(client.post, warm))
        before = _memory(server)
        replies = list(pool.map(lambda each: client.post(each[1], form=each[0] % 2 == 1), enumerate(files)))
        return replies, _memory(server) - before


def _mixed(client: Client, odd: Sequence[bytes], good: bytes) -> tuple[list[Reply], int]:
    """The replies to odd files with good ones in flight, and how many of the good ones failed or were answered anew."""
    expected = _predictions(client.post(good))
    replies, wrong = [], 0
    with ThreadPoolExecutor(GOOD_PER_ODD + 1) as pool:
        for file in odd:
            reply = pool.submit(client.post, file)
            others = list(pool.map(client.post, [good] * GOOD_PER_ODD))
            wrong += sum(_predictions(other) != expected for other in others)
            replies.append(reply.result())
    return replies, wrong


def _predictions(reply: Reply) -> Any:
    return json.loads(reply.body)["predictions"] if reply.status == 200 else reply.status


def _memory(server: Server) -> float:
    """Resident MiB of the process that serves and its supervisor; settled, as memory is given back a little later."""
    time.sleep(1)
    parent = psutil.Process(server.process.pid)
    return sum(process.memory_info().rss for process in (parent, *parent.children(recursive=True))) / MIB


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Malformed, prog="python -m loadtest.malformed")))
