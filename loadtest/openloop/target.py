"""The server under test: what it says about itself, and the requests to send it with their right answers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loadtest.openloop.samples import Target
from loadtest.reporting.cli import CompareError
from loadtest.servers.peer import INDEX

DECIDED = 0.05
"""Between the two best probabilities: nearer classes may swap with any rounding, so either is right."""

# One prediction a picture, so that every index in an answer is the class of one picture.
_SINGLE, _BATCH = "/classify?top_k=1", "/classify_batch?top_k=1"
_BOUNDARY = "----halftone-5d0c3b7e"
_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A server that answers."""

    host: str
    port: int
    model: str
    version: str
    variant: str
    pictures: Mapping[str, bytes]
    classes: Mapping[str, int]
    """Picture's name to its class, or -1 where the two best are about as probable."""

    def single(self) -> Target:
        """One picture a request."""
        return self._target(_SINGLE, "image/jpeg", [[name] for name in self.pictures])

    def batch(self, size: int) -> Target:
        """Several pictures a request, each request beginning with another picture."""
        names = list(self.pictures)
        groups = [[names[(first + step) % len(names)] for step in range(size)] for first in range(len(names))]
        return self._target(_BATCH, f"multipart/form-data; boundary={_BOUNDARY}", groups)

    def describe(self) -> dict[str, str]:
        """For the report."""
        return {"model": self.model, "version": self.version, "variant": self.variant}

    def _target(self, path: str, content_type: str, groups: Sequence[Sequence[str]]) -> Target:
        bodies = [_body(content_type, [self.pictures[name] for name in group]) for group in groups]
        return Target(
            host=self.host,
            port=self.port,
            requests=[_request(self.host, self.port, path, content_type, body) for body in bodies],
            expected=[tuple(self.classes[name] for name in group) for group in groups],
            answer=INDEX,
        )


def address(url: str) -> tuple[str, int]:
    """Host and port of `http://HOST:PORT`.

    Raises:
        CompareError: it is another kind of URL.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        raise CompareError(f"--url {url}: give the server's address as http://HOST:PORT, without a path")
    return parts.hostname, port


def meet(url: str, pictures: Mapping[str, bytes]) -> Subject:
    """Ask the server what it is, and for the class of each picture; its later answers have to agree.

    Raises:
        CompareError: it can't be reached, or doesn't answer as our service does.
    """
    host, port = address(url)
    try:
        model = _ask(host, port, "GET", "/models", b"")["models"][0]
        classes = {name: _class(host, port, picture) for name, picture in pictures.items()}
        return Subject(
            host=host,
            port=port,
            model=str(model["name"]),
            version=str(model["version"]),
            variant=str(model["variant"]),
            pictures=pictures,
            classes=classes,
        )
    except OSError as error:
        raise CompareError(f"--url {url}: no server answers there ({error}): start it with `bentoml serve`") from None
    except (http.client.HTTPException, ValueError, KeyError, TypeError, IndexError) as error:
        raise CompareError(f"--url {url}: it doesn't answer as Halftone does ({error!r})") from None


def _class(host: str, port: int, picture: bytes) -> int:
    first, *others = _ask(host, port, "POST", "/classify?top_k=2", picture)["predictions"]
    undecided = any(first["probability"] - other["probability"] <= DECIDED for other in others)
    return -1 if undecided else int(first["index"])


def _ask(host: str, port: int, method: str, path: str, body: bytes) -> Any:
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request(method, path, body or None, {"Content-Type": "image/jpeg"} if body else {})
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"{method} {path} answered {response.status} {answer[:200].decode(errors='replace')}")
    return json.loads(answer)


def _request(host: str, port: int, path: str, content_type: str, body: bytes) -> bytes:
    shown = f"[{host}]" if ":" in host else host
    lines = (f"Host: {shown}:{port}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}")
    return "\r\n".join((f"POST {path} HTTP/1.1", *lines, "", "")).encode() + body


def _body(content_type: str, pictures: Sequence[bytes]) -> bytes:
    if not content_type.startswith("multipart/"):
        return pictures[0]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x.jpg"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{_BOUNDARY}--\r\n".encode()
