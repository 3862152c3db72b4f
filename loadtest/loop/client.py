"""Client of the run: classifies pictures one after the other, and acts as the operator under /admin."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from loadtest.client.blocking import SyncClient, fetch
from loadtest.client.http1 import encode_request, get, post
from loadtest.loop.pictures import Picture
from loadtest.reporting.cli import PeerError

ADMIN_SECONDS = 300
SETTLED_SECONDS = 60
_POLL_SECONDS = 0.5
_COLLECTED = re.compile(r'^halftone_collected_total\{.*result="(\w+)".*\} (\S+)$', re.MULTILINE)
_DRIFT = re.compile(r'^halftone_input_drift_detected\{.*measure="(\w+)".*\} 1\.0$', re.MULTILINE)


class Answer(NamedTuple):
    """Answer to a picture."""

    label: str
    version: str


def classify(port: int, pictures: Sequence[Picture]) -> Iterator[Answer | None]:
    """Send pictures one after the other; yield each answer, None if there is none."""
    client = SyncClient(port)
    for picture in pictures:
        try:
            response = client.request(post("/classify", picture.data, media_type="image/png"))
        except OSError:
            yield None
            continue
        if response.status != 200:
            yield None
            continue
        body = json.loads(response.body)
        yield Answer(body["predictions"][0]["label"], body["version"])
    client.close()


def right(port: int, pictures: Sequence[Picture]) -> list[bool]:
    """Return for each picture if it is answered with its class."""
    answers = classify(port, pictures)
    return [answer is not None and answer.label == each.label for answer, each in zip(answers, pictures, strict=True)]


def admin(port: int, token: str, method: str, model: str, action: str, body: Any = None) -> dict[str, Any]:
    """Send a request under /admin/models/MODEL; return the response.

    Raises:
        PeerError: the service refuses it.
    """
    data = b"" if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    path = f"/admin/models/{quote(model)}/{action}"
    response = fetch(port, encode_request(method, path, data, host="127.0.0.1", headers=headers), timeout=ADMIN_SECONDS)
    answer: dict[str, Any] = json.loads(response.body)
    if response.status != 200:
        raise PeerError(f"{method} {path} is refused with {response.status}: {answer['error']['message']}")
    return answer


def metrics(port: int) -> str:
    """Return the metrics of the service."""
    return fetch(port, get("/metrics")).body.decode()


def collected(port: int) -> dict[str, int]:
    """Return how many pictures became what, when the counts have stayed the same for a second."""
    end, before = time.monotonic() + SETTLED_SECONDS, None
    while (now := dict(_COLLECTED.findall(metrics(port)))) != before and time.monotonic() < end:
        before = now
        # The service writes at least one picture a second.
        time.sleep(2 * _POLL_SECONDS + 0.1)
    return {result: int(float(count)) for result, count in now.items()}


def drifted(port: int) -> list[str]:
    """Return the measures by which the pictures differ from those of the proof."""
    return sorted(set(_DRIFT.findall(metrics(port))))
