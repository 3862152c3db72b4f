"""`python -m loadtest.overload`: more requests than the service can answer, clients that leave, and slow ones.

Starts `bentoml serve` on a free port of 127.0.0.1 three times:
flood     measures how many pictures a second it answers, then asks five times as often for a while: what it answers
          must hardly be less, in time, and the rest told when to come again;
leavers   clients that close their connection while their picture waits: none of those pictures may be worked on;
slow      connections that send a byte now and then: the others must hardly notice.
About 3 minutes by default. The picture is a photograph of 12 megapixels, as a telephone takes it, since the client
shares the machine with the service: with small pictures the client would be overloaded. What the client takes of the
cores is not the service's to answer with: goodput and peak are compared for a core of what it left, and pictures a
second stand beside. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

from loadtest.client.flood import Clients, Reply, quantile, request
from loadtest.reporting.figures import Figure, Findings
from loadtest.servers.halftone import Server, started
from loadtest.servers.process import usable_cores

OVERLOAD = 5
PEAK_CLIENTS = 16
GOOD_CLIENTS = 4
BLOCKERS = 24
LEAVERS = 100
QUEUE = 1000
SLOW_BYTE_SECONDS = 1.0
LEAVING_SECONDS = 0.15
NOTICED_SECONDS = 0.1
QUIET = {"HALFTONE_LOG_REQUESTS": "0"}


@dataclass(frozen=True, kw_only=True)
class Overload:
    """Ask more of the service than it can do."""

    photo: Path = Path("export/photos/cat.jpg")
    """What the picture is made from."""

    width: int = 4000
    """Of the large picture, in pixels."""

    seconds: float = 60.0
    """Of the flood; the peak is measured for a quarter of it."""

    deadline: float = 10.0
    """Seconds that the service may take for an answer (HALFTONE_DEADLINE)."""

    leavers: int = 1000
    """Clients that leave."""

    slow: int = 500
    """Slow connections."""

    output: Path | None = None
    """Path without ending for the figures as .json and .md, besides what is printed."""


def main(config: Overload) -> int:
    """Measure and print; returns the exit code."""
    if not config.photo.is_file() or min(config.width, config.seconds, config.leavers, config.slow) <= 0:
        print(f"error: --photo {config.photo} must be a picture, the numbers positive", file=sys.stderr)
        return 2
    small = config.photo.read_bytes()
    large = _enlarged(config.photo, config.width)
    figures: list[Figure] = []
    with started(**QUIET, HALFTONE_DEADLINE=str(config.deadline)) as server:
        variant = server.first_answer(small)["variant"]
        figures += _run(_flood(server, request("/classify", large), config))
    with started(**QUIET, HALFTONE_THREADS="1", HALFTONE_DEADLINE="60", HALFTONE_QUEUE=str(QUEUE)) as server:
        server.first_answer(small)
        figures += _run(_leavers(server, request("/classify", large), request("/classify", small), config))
    with started(**QUIET) as server:
        server.first_answer(small)
        figures += _run(_slow(server, request("/classify", small), config))
    setting = {"variant": variant, "picture": f"{config.width} pixels wide, {len(large) / 1000:.0f} kB"}
    return Findings("Overload, leavers and slow connections", figures, setting).report(config.output)


def _run(work: Coroutine[Any, Any, list[Figure]]) -> list[Figure]:
    """On the faster event loop, where there is one."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)


async def _flood(server: Server, data: bytes, config: Overload) -> list[Figure]:
    clients = Clients(server.port)
    await clients.closed_loop(data, PEAK_CLIENTS, config.seconds / 8)
    start, left = time.monotonic(), _CoresLeft()
    peak_replies = await clients.closed_loop(data, PEAK_CLIENTS, config.seconds / 4)
    peak, left_at_peak = len(_good(peak_replies)) / (time.monotonic() - start), left.mean()
    start, left = time.monotonic(), _CoresLeft()
    replies = await clients.open_loop(data, OVERLOAD * peak, config.seconds)
    share_left = left.mean() / left_at_peak
    clients.close()
    return _judged(replies, peak, start, config, share_left)


class _CoresLeft:
    """How many of the cores this process did not use itself, from now on."""

    def __init__(self) -> None:
        self._start, self._used = time.monotonic(), time.process_time()

    def mean(self) -> float:
        """Until now."""
        return usable_cores() - (time.process_time() - self._used) / (time.monotonic() - self._start)


def _judged(replies: list[Reply], peak: float, start: float, config: Overload, share_left: float) -> list[Figure]:
    """What the flood showed; `share_left` is what the client left of the cores by what it had left at the peak."""
    good = _good(replies)
    # The client may be slower than it should: what counts is what it sent.
    rate = len(replies) / (max(reply.ended - reply.seconds for reply in replies) - start)
    # What was answered while requests came in: what is left in the queue at the end is no throughput of the flood.
    goodput = sum(reply.ended <= start + config.seconds for reply in good) / config.seconds
    share = goodput / peak
    refused = [reply for reply in replies if reply.status != 200]
    untold = sum(reply.status not in (429, 503) or "retry-after" not in reply.headers for reply in refused)
    late = quantile([reply.seconds for reply in good], 0.99)
    return [
        Figure("peak, pictures/s", round(peak, 1)),
        Figure("asked for, requests/s", round(rate, 1), f"{OVERLOAD} x peak", rate >= 0.95 * OVERLOAD * peak),
        Figure("goodput, pictures/s", round(goodput, 1)),
        Figure("share of the peak", round(share, 3)),
        Figure("cores that the client left, by those at the peak", round(share_left, 3)),
        Figure("share of the peak for a core", round(share / share_left, 3), "at least 0.9", share >= 0.9 * share_left),
        Figure("answers by status", dict(sorted(Counter(reply.status for reply in replies).items()))),
        Figure("refused otherwise than 429 or 503 with Retry-After", untold, "0", not untold),
        Figure("p99 of what was accepted, s", round(late, 3), f"at most {config.deadline:g}", late <= config.deadline),
    ]


async def _leavers(server: Server, large: bytes, small: bytes, config: Overload) -> list[Figure]:
    """Rounds in which large pictures keep the one thread busy while others queue behind them and leave."""
    clients = Clients(server.port)
    left, ran, blockers = 0, 0, BLOCKERS
    while left < config.leavers:
        count = min(LEAVERS, config.leavers - left)
        run = await _leavers_run(server, clients, [large] * blockers, [small] * count)
        if run is None:
            # They were done before the others had left: nothing can be said of this round.
            blockers *= 2
            if blockers + LEAVERS > QUEUE:
                raise RuntimeError(f"{blockers // 2} large pictures are done before {count} clients have left")
            continue
        left, ran = left + count, ran + run
    clients.close()
    return [
        Figure("clients that left", left, f"{config.leavers:,}", left >= config.leavers),
        Figure("pictures of theirs that were run", ran, "0", not ran),
    ]


async def _leavers_run(server: Server, clients: Clients, large: list[bytes], small: list[bytes]) -> int | None:
    """How many of the small pictures were run in one round; None where the large ones were done too early."""
    before = await _pictures_run(server)
    blockers = [asyncio.ensure_future(clients.ask(data)) for data in large]
    await asyncio.sleep(LEAVING_SECONDS)
    await asyncio.gather(*(_ask_and_leave(clients, data) for data in small))
    await asyncio.sleep(NOTICED_SECONDS)
    early = all(blocker.done() for blocker in blockers)
    asked = len(_good(await asyncio.gather(*blockers)))
    # What was still in the queue would be run now.
    await clients.ask(small[0])
    return None if early else await _pictures_run(server) - before - asked - 1


async def _ask_and_leave(clients: Clients, data: bytes) -> None:
    _, writer = await clients.connect()
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(LEAVING_SECONDS)
    writer.transport.abort()


async def _slow(server: Server, data: bytes, config: Overload) -> list[Figure]:
    clients = Clients(server.port)
    seconds = max(2.0, config.seconds / 6)
    await clients.closed_loop(data, GOOD_CLIENTS, seconds / 4)
    alone = [reply.seconds for reply in await clients.closed_loop(data, GOOD_CLIENTS, seconds)]
    tricklers = [asyncio.ensure_future(_trickle(clients, data, index)) for index in range(config.slow)]
    await asyncio.sleep(min(1.0, seconds / 4))
    replies = await clients.closed_loop(data, GOOD_CLIENTS, seconds)
    for trickler in tricklers:
        trickler.cancel()
    await asyncio.gather(*tricklers, return_exceptions=True)
    clients.close()
    before, during = quantile(alone, 0.99), quantile([reply.seconds for reply in replies], 0.99)
    failed = len(replies) - len(_good(replies))
    return [
        Figure("slow connections", config.slow),
        Figure("p99 of the others without them, ms", round(1000 * before, 1)),
        Figure("p99 of the others beside them, ms", round(1000 * during, 1), "at most twice", during <= 2 * before),
        Figure("others that failed", failed, "0", not failed),
    ]


async def _trickle(clients: Clients, data: bytes, index: int) -> None:
    """One byte now and then, of a head for every other connection, else of a body; again as soon as it is closed."""
    start = 0 if index % 2 else data.index(b"\r\n\r\n") + 4
    while True:
        with contextlib.suppress(OSError):
            _, writer = await clients.connect()
            writer.write(data[:start])
            position = start
            while not writer.transport.is_closing():
                writer.write(data[position : position + 1])
                position += 1
                await asyncio.sleep(SLOW_BYTE_SECONDS)


def _good(replies: list[Reply]) -> list[Reply]:
    return [reply for reply in replies if reply.status == 200]


async def _pictures_run(server: Server) -> int:
    """How many pictures went through the model so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as response:
        text = response.read().decode()
    found = re.findall(r"^halftone_batch_items_sum\{.*\} ([\d.e+]+)$", text, re.MULTILINE)
    return round(sum(map(float, found)))


def _enlarged(photo: Path, width: int) -> bytes:
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    file = io.BytesIO()
    image.resize((width, round(width * image.height / image.width))).save(file, "JPEG", quality=80)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Overload, prog="python -m loadtest.overload")))
