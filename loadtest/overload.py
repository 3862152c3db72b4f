"""`python -m loadtest.overload`: goodput under overload, leaving clients, slow connections, and busy explanations.

Starts `bentoml serve` on a free port of 127.0.0.1 four times:
flood     measures the peak rate, then sends five times as many requests: goodput must stay near the peak, accepted
          requests must meet the deadline, and rejections must carry Retry-After;
leavers   clients close their connection while their image is queued: the model must run none of these images;
slow      connections send one byte at a time: the latency of the other clients must hardly change;
explain   clients ask for heat maps without pause: classifications must hardly wait for them (in turns).
About 4 minutes by default. The image is a photograph of 12 megapixels, as a phone camera takes it: with small images
the client, which shares the machine with the service, would be overloaded first. CPU time used by the client is not
available to the service, so goodput is compared with the peak per core that the client left; images per second are
reported too. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from loadtest.client.blocking import fetch
from loadtest.client.flood import Clients, Reply
from loadtest.client.http1 import get, post
from loadtest.client.load import percentile
from loadtest.reporting.cli import PHOTOS, JsonOutput, check_least, check_picture, check_positive, run
from loadtest.reporting.figures import Figure, Findings
from loadtest.reporting.host import usable_cores
from loadtest.servers.halftone import Server, started

OVERLOAD = 5
PEAK_CLIENTS = 16
GOOD_CLIENTS = 4
BLOCKERS = 24
LEAVERS = 100
QUEUE = 1000
SLOW_BYTE_SECONDS = 1.0
QUEUED_SECONDS = 0.15
NOTICED_SECONDS = 0.1
EXPLAINERS = 2
EXPLAIN_ROUNDS = 3
QUIET = {"HALFTONE_LOG_REQUESTS": "0"}


@dataclass(frozen=True, kw_only=True)
class Overload(JsonOutput):
    """Overload the service, disconnect clients, keep slow connections open, and ask for heat maps without pause."""

    photo: Path = PHOTOS / "cat.jpg"
    """Photograph to enlarge; the large picture is sent."""

    width: int = 4000
    """Width of the large picture in pixels."""

    seconds: float = 60.0
    """Seconds of overload; the peak is measured for a quarter of it."""

    deadline: float = 10.0
    """Seconds that the service may take for a response (HALFTONE_DEADLINE)."""

    leavers: int = 1000
    """Clients that disconnect while their picture is queued."""

    slow: int = 500
    """Slow connections."""

    output: Path | None = None
    """Path without suffix for the figures as .json and .md, in addition to the printed ones."""

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "deadline")
        check_least(self, 1, "width", "leavers", "slow")
        check_picture(self.photo, "--photo")


def main(config: Overload) -> int:
    """Measure and report; return the exit code."""
    small = config.photo.read_bytes()
    large = _enlarged(config.photo, config.width)
    figures: list[Figure] = []
    with started(**QUIET, HALFTONE_DEADLINE=str(config.deadline)) as server:
        variant = server.first_answer(small)["variant"]
        figures += _run(_flood(server, post("/classify", large), config))
    with started(**QUIET, HALFTONE_THREADS="1", HALFTONE_DEADLINE="60", HALFTONE_QUEUE=str(QUEUE)) as server:
        server.first_answer(small)
        figures += _run(_disconnects(server, post("/classify", large), post("/classify", small), config))
    with started(**QUIET) as server:
        server.first_answer(small)
        figures += _run(_slow(server, post("/classify", small), config))
    with started(**QUIET) as server:
        server.first_answer(small)
        figures += _run(_explained(server, post("/classify", small), post("/explain", small), config))
    setting = {"variant": variant, "picture": f"{config.width} pixels wide, {len(large) / 1000:.0f} kB"}
    return Findings("Overload, leaving clients, slow connections, heat maps", figures, setting).report(config.output)


def _run(work: Coroutine[Any, Any, list[Figure]]) -> list[Figure]:
    """Run on uvloop, except on Windows, which has none."""
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
    return _overload_figures(replies, peak, start, config, share_left)


class _CoresLeft:
    """CPU cores not used by this process (the load generator) since the object was created."""

    def __init__(self) -> None:
        self._start, self._used = time.monotonic(), time.process_time()

    def mean(self) -> float:
        """Return the mean number of cores left until now."""
        return usable_cores() - (time.process_time() - self._used) / (time.monotonic() - self._start)


def _overload_figures(
    replies: list[Reply], peak: float, start: float, config: Overload, share_left: float
) -> list[Figure]:
    """Return the figures of the overload phase.

    `share_left`: CPU cores not used by the load generator, relative to the same figure during the peak measurement.
    """
    good = _good(replies)
    # The client may be slower than intended, so the rate is that of the requests sent.
    rate = len(replies) / (max(reply.ended - reply.seconds for reply in replies) - start)
    # Only responses received while requests arrived: draining the queue afterwards is no throughput under overload.
    goodput = sum(reply.ended <= start + config.seconds for reply in good) / config.seconds
    share = goodput / peak
    rejected = [reply for reply in replies if reply.status != 200]
    wrong = sum(reply.status not in (429, 503) or "retry-after" not in reply.headers for reply in rejected)
    p99 = percentile([reply.seconds for reply in good], 99)
    return [
        Figure("peak, pictures/s", round(peak, 1)),
        Figure("sent, requests/s", round(rate, 1), f"{OVERLOAD} x peak", rate >= 0.95 * OVERLOAD * peak),
        Figure("goodput, pictures/s", round(goodput, 1)),
        Figure("share of the peak", round(share, 3)),
        Figure("cores left by the client, relative to the peak", round(share_left, 3)),
        Figure("share of the peak per core", round(share / share_left, 3), "at least 0.9", share >= 0.9 * share_left),
        Figure("responses by status", dict(sorted(Counter(reply.status for reply in replies).items()))),
        Figure("rejections other than 429 or 503 with Retry-After", wrong, "0", not wrong),
        Figure("p99 of accepted requests, s", round(p99, 3), f"at most {config.deadline:g}", p99 <= config.deadline),
    ]


async def _disconnects(server: Server, large: bytes, small: bytes, config: Overload) -> list[Figure]:
    """Run rounds in which large images keep the only thread busy while clients with small ones disconnect."""
    clients = Clients(server.port)
    left, ran, blockers = 0, 0, BLOCKERS
    while left < config.leavers:
        count = min(LEAVERS, config.leavers - left)
        run = await _disconnect_round(server, clients, [large] * blockers, [small] * count)
        if run is None:
            # The large images were done before all clients had disconnected: the round proves nothing.
            blockers *= 2
            if blockers + LEAVERS > QUEUE:
                raise RuntimeError(f"{blockers // 2} large pictures were done before {count} clients had disconnected")
            continue
        left, ran = left + count, ran + run
    clients.close()
    return [
        Figure("clients that disconnected", left, f"{config.leavers:,}", left >= config.leavers),
        Figure("pictures of these clients that were run", ran, "0", not ran),
    ]


async def _disconnect_round(server: Server, clients: Clients, large: list[bytes], small: list[bytes]) -> int | None:
    """Return how many small images were run in one round; None if the large ones were done too early."""
    before = await _pictures_run(server)
    blockers = [asyncio.ensure_future(clients.request(data)) for data in large]
    await asyncio.sleep(QUEUED_SECONDS)
    await asyncio.gather(*(_send_and_disconnect(clients, data) for data in small))
    await asyncio.sleep(NOTICED_SECONDS)
    early = all(blocker.done() for blocker in blockers)
    large_run = len(_good(await asyncio.gather(*blockers)))
    # Images still in the queue would be run before this one.
    await clients.request(small[0])
    return None if early else await _pictures_run(server) - before - large_run - 1


async def _send_and_disconnect(clients: Clients, data: bytes) -> None:
    _, writer = await clients.connect()
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(QUEUED_SECONDS)
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
    before, during = percentile(alone, 99), percentile([reply.seconds for reply in replies], 99)
    failed = len(replies) - len(_good(replies))
    return [
        Figure("slow connections", config.slow),
        Figure("p99 of other clients without them, ms", round(1000 * before, 1)),
        Figure("p99 of other clients with them, ms", round(1000 * during, 1), "at most twice", during <= 2 * before),
        Figure("other requests that failed", failed, "0", not failed),
    ]


async def _explained(server: Server, classify: bytes, explain: bytes, config: Overload) -> list[Figure]:
    """Compare the p99 of classifications with and without explanations, in turns."""
    clients, others = Clients(server.port), Clients(server.port)
    seconds = max(1.0, config.seconds / 12)
    await others.request(explain)
    p99: dict[bool, list[float]] = {False: [], True: []}
    failed, explained = 0, 0
    for number in range(2 * EXPLAIN_ROUNDS):
        busy = number % 4 in (1, 2)
        load = clients.closed_loop(classify, GOOD_CLIENTS, seconds)
        asked = others.closed_loop(explain, EXPLAINERS if busy else 0, seconds)
        replies, maps = await asyncio.gather(load, asked)
        p99[busy].append(percentile([reply.seconds for reply in _good(replies)], 99))
        failed += len(replies) - len(_good(replies))
        explained += len(_good(maps))
    clients.close()
    others.close()
    without, during = (statistics.median(p99[busy]) for busy in (False, True))
    return [
        Figure("heat maps meanwhile", explained, "some", explained > 0),
        Figure("p99 of classifications without heat maps, ms", round(1000 * without, 1)),
        Figure("p99 with them, ms", round(1000 * during, 1), "at most 1.3 times", during <= 1.3 * without),
        Figure("classifications that failed", failed, "0", not failed),
    ]


async def _trickle(clients: Clients, data: bytes, index: int) -> None:
    """Send one byte a second: of a head on every other connection, else of a body. Reconnect when it is closed."""
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
    """Return how many images the model has run so far."""
    response = fetch(server.port, get("/metrics"))
    if response.status != 200:
        raise RuntimeError(f"/metrics: status {response.status}")
    found = re.findall(r"^halftone_batch_items_sum\{.*\} ([\d.e+]+)$", response.body.decode(), re.MULTILINE)
    return round(sum(map(float, found)))


def _enlarged(photo: Path, width: int) -> bytes:
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    file = io.BytesIO()
    image.resize((width, round(width * image.height / image.width))).save(file, "JPEG", quality=80)
    return file.getvalue()


if __name__ == "__main__":
    run(main, Overload, prog="python -m loadtest.overload", example="--seconds 30")
