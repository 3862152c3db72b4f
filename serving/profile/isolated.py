"""Time the stages that can't be observed within a request: each one is repeated alone on one thread."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import httptools

from models.preprocess.decode import decode
from models.preprocess.transform import fit
from models.spec import InputSpec
from serving.http.response import as_json
from serving.profile.driver import PATH


def time_stages(image: bytes, spec: InputSpec, answer: bytes, repeats: int) -> dict[str, float]:
    """Return the median seconds of each stage.

    Args:
        image: the file that is sent.
        spec: the model's input.
        answer: body of the service's response, as JSON.
        repeats: repeats of each stage.

    Returns:
        `parse` (the HTTP request, by httptools), `decode`, `fit` and `encode`.
    """
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    request, value, pixels = head.encode() + image, json.loads(answer), decode(image)
    stages: dict[str, Callable[[], object]] = {
        "parse": lambda: httptools.HttpRequestParser(_Callbacks()).feed_data(request),
        "decode": lambda: decode(image),
        "fit": lambda: fit(pixels, spec),
        "encode": lambda: as_json(value),
    }
    return {name: _median(work, repeats) for name, work in stages.items()}


class _Callbacks:
    """The callbacks of a server's HTTP parser, which do nothing here."""

    def on_url(self, url: bytes) -> None:
        pass

    def on_header(self, name: bytes, value: bytes) -> None:
        pass

    def on_body(self, body: bytes) -> None:
        pass


def _median(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
