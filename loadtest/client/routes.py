"""Clients that post images over every route in turn and record each response, with the version that it names."""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

from loadtest.client.blocking import SyncClient
from loadtest.client.http1 import encode_request

BOUNDARY = "versions"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
TRIED = b"x-upstream"
"""Header in which a balancer names the servers that it tried, in order and separated by commas."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request and its response."""

    route: str
    """Name of the route."""

    sent: float
    """Monotonic time of sending in seconds."""

    received: float
    """Monotonic time at which the response was complete."""

    status: int
    """HTTP status; 0 if the connection failed."""

    version: str = ""
    """Version that the response names."""

    gaps: tuple[float, ...] = ()
    """ln(p1 / p2) of the two best classes of each image: the difference of their logits over the temperature."""

    problem: str = ""
    """Error message; empty for a valid response."""

    tried: tuple[str, ...] = ()
    """Addresses of the servers that a balancer tried, the last of which answered; empty without a balancer."""

    late: float = 0.0
    """Seconds from the time at which it was due to that of sending; 0 in a closed loop."""

    @property
    def latency_ms(self) -> float:
        """Milliseconds from the time at which it was due to the end of the response."""
        return 1000 * (self.received - self.sent + self.late)


@dataclass(frozen=True, kw_only=True)
class Route:
    """Request of one route, and the parser of its responses."""

    name: str
    path: str
    body: bytes
    headers: dict[str, str]
    read: Callable[[dict[str, Any]], tuple[str, list[list[float]]]]
    """Returns the version in a response and the two best probabilities of each image."""


def routes(model: str, picture: bytes) -> list[Route]:
    """Return /classify, /classify_batch with two images, and the Open Inference Protocol."""
    head = {
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(picture)}}
        ],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    }
    text = json.dumps(head).encode()
    return [
        Route(name="classify", path="/classify?top_k=2", body=picture, headers={}, read=_single),
        Route(name="classify_batch", path="/classify_batch?top_k=2", body=_form(picture, 2), headers=FORM, read=_batch),
        Route(
            name="v2",
            path=f"/v2/models/{model}/infer",
            body=text + len(picture).to_bytes(4, "little") + picture,
            headers={"Inference-Header-Content-Length": str(len(text))},
            read=_v2,
        ),
    ]


class Clients:
    """Threads that send requests until the block ends.

    Args:
        port: of the server on 127.0.0.1.
        routes: used in turn.
        count: number of threads.
        rate: requests a second of all threads together, at random times; None: each thread sends the next request
            after the last response.
    """

    def __init__(self, port: int, routes: list[Route], count: int, *, rate: float | None = None) -> None:
        self.samples: list[Sample] = []
        self._port = port
        self._stopped = threading.Event()
        self._times = None if rate is None else _Times(rate)
        self._threads = [threading.Thread(target=self._run, args=(_rotated(routes, i),)) for i in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, routes: Iterator[Route]) -> None:
        client = SyncClient(self._port)
        for route in routes:
            due = self._times.next() if self._times else time.monotonic()
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                break
            sample = send(client, route)
            self.samples.append(replace(sample, late=sample.sent - due) if self._times else sample)
        client.close()


class _Times:
    """Times of a Poisson process, each given to one thread.

    Args:
        rate: mean number a second.
    """

    def __init__(self, rate: float) -> None:
        self._rate, self._random, self._now = rate, random.Random(0), time.monotonic()
        self._lock = threading.Lock()

    def next(self) -> float:
        """Return the next monotonic time in seconds."""
        with self._lock:
            self._now += self._random.expovariate(self._rate)
            return self._now


def send(client: SyncClient, route: Route) -> Sample:
    """Post one request and return the sample."""
    sent, status = time.monotonic(), 0
    tried: tuple[str, ...] = ()
    try:
        response = client.request(
            encode_request("POST", route.path, route.body, host="127.0.0.1", headers=route.headers)
        )
        body, status = response.body, response.status
        tried = tuple(each.strip() for each in response.headers.get(TRIED, b"").decode().split(",") if each)
        if status != 200:
            raise ValueError(body.decode(errors="replace")[:300])
        version, pictures = route.read(json.loads(body))
        gaps = tuple(math.log(first / second) for first, second in pictures)
    # A client must continue after any invalid response.
    except Exception as error:
        client.close()
        problem = f"{type(error).__name__}: {error}"
        return Sample(
            route=route.name, sent=sent, received=time.monotonic(), status=status, problem=problem, tried=tried
        )
    received = time.monotonic()
    return Sample(
        route=route.name, sent=sent, received=received, status=status, version=version, gaps=gaps, tried=tried
    )


def _rotated(routes: list[Route], by: int) -> Iterator[Route]:
    by %= len(routes)
    return cycle(routes[by:] + routes[:by])


def _single(body: dict[str, Any]) -> tuple[str, list[list[float]]]:
    return body["version"], [[each["probability"] for each in body["predictions"]]]


def _batch(body: dict[str, Any]) -> tuple[str, list[list[float]]]:
    return body["version"], [[each["probability"] for each in slot["predictions"]] for slot in body["results"]]


def _v2(body: dict[str, Any]) -> tuple[str, list[list[float]]]:
    (output,) = body["outputs"]
    return body["model_version"], [[float(text.split(":")[0]) for text in output["data"]]]


def _form(picture: bytes, count: int) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for _ in range(count)) + f"--{BOUNDARY}--\r\n".encode()
