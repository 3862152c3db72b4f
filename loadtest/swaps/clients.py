"""Clients that never pause: each posts one picture after the other by every way that there is, and notes the answer."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from loadtest.servers.halftone import Server

BOUNDARY = "swaps"
SECONDS = 30
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request."""

    way: str
    """The route's name."""

    sent: float
    """When it began, monotonic seconds."""

    received: float
    """When its answer was there."""

    status: int
    """HTTP status; 0 where the connection failed."""

    version: str = ""
    """That the answer names."""

    gaps: tuple[float, ...] = ()
    """For each picture ln(p1 / p2) of its two best classes: their logits' difference over the temperature."""

    problem: str = ""
    """What went wrong."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to ask."""

    name: str
    path: str
    body: bytes
    headers: dict[str, str]
    read: Callable[[dict[str, Any]], tuple[str, list[list[float]]]]
    """From an answer to its version and the two best probabilities of each picture."""


def ways(model: str, picture: bytes) -> list[Way]:
    """/classify, /classify_batch with two pictures, and the Open Inference Protocol."""
    head = {
        "inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(picture)}}
        ],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    }
    text = json.dumps(head).encode()
    return [
        Way(name="classify", path="/classify?top_k=2", body=picture, headers={}, read=_one),
        Way(name="classify_batch", path="/classify_batch?top_k=2", body=_form(picture, 2), headers=FORM, read=_batch),
        Way(
            name="v2",
            path=f"/v2/models/{model}/infer",
            body=text + len(picture).to_bytes(4, "little") + picture,
            headers={"Inference-Header-Content-Length": str(len(text))},
            read=_v2,
        ),
    ]


class Clients:
    """Threads that ask until they are told to stop.

    Args:
        server: that they ask.
        ways: in turn.
        count: of threads.
    """

    def __init__(self, server: Server, ways: list[Way], count: int) -> None:
        self.samples: list[Sample] = []
        self._server = server
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(_rotated(ways, i),)) for i in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, ways: Iterator[Way]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=SECONDS)
        while not self._stopped.is_set():
            self.samples.append(ask(connection, next(ways)))
        connection.close()


def ask(connection: http.client.HTTPConnection, way: Way) -> Sample:
    """Post once."""
    sent, status = time.monotonic(), 0
    try:
        connection.request("POST", way.path, way.body, way.headers)
        response = connection.getresponse()
        body, status = response.read(), response.status
        if status != 200:
            raise ValueError(body.decode(errors="replace")[:300])
        version, pictures = way.read(json.loads(body))
        gaps = tuple(math.log(first / second) for first, second in pictures)
    # Whatever is wrong with an answer, the client must ask on.
    except Exception as error:
        connection.close()
        problem = f"{type(error).__name__}: {error}"
        return Sample(way=way.name, sent=sent, received=time.monotonic(), status=status, problem=problem)
    return Sample(way=way.name, sent=sent, received=time.monotonic(), status=status, version=version, gaps=gaps)


def _rotated(ways: list[Way], by: int) -> Iterator[Way]:
    by %= len(ways)
    return cycle(ways[by:] + ways[:by])


def _one(answer: dict[str, Any]) -> tuple[str, list[list[float]]]:
    return answer["version"], [[each["probability"] for each in answer["predictions"]]]


def _batch(answer: dict[str, Any]) -> tuple[str, list[list[float]]]:
    return answer["version"], [[each["probability"] for each in slot["predictions"]] for slot in answer["results"]]


def _v2(answer: dict[str, Any]) -> tuple[str, list[list[float]]]:
    (output,) = answer["outputs"]
    return answer["model_version"], [[float(text.split(":")[0]) for text in output["data"]]]


def _form(picture: bytes, count: int) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for _ in range(count)) + f"--{BOUNDARY}--\r\n".encode()
