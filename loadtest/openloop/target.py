"""The server under test: its description, and the requests for it with their right classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loadtest.client.blocking import fetch
from loadtest.client.http1 import MalformedResponseError, encode_request, get, post
from loadtest.openloop.samples import Target
from loadtest.reporting.cli import CompareError
from loadtest.servers.peer import INDEX

DECIDED = 0.05
"""Least difference of the two best probabilities: rounding may swap nearer classes, so that either is right."""

# One prediction a picture, so that every index in a response is the class of one picture.
_SINGLE, _BATCH = "/classify?top_k=1", "/classify_batch?top_k=1"
_BOUNDARY = "----halftone-5d0c3b7e"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A server that serves a model, and pictures with the classes that it gave them."""

    host: str
    port: int
    model: str
    version: str
    variant: str
    pictures: Mapping[str, bytes]
    classes: Mapping[str, int]
    """Class by the picture's name; -1 if the two best are nearly as probable."""

    def single(self) -> Target:
        """Return requests of one picture."""
        return self._target(_SINGLE, "image/jpeg", [[name] for name in self.pictures])

    def batch(self, size: int) -> Target:
        """Return requests of several pictures, each beginning with another picture."""
        names = list(self.pictures)
        groups = [[names[(first + step) % len(names)] for step in range(size)] for first in range(len(names))]
        return self._target(_BATCH, f"multipart/form-data; boundary={_BOUNDARY}", groups)

    def describe(self) -> dict[str, str]:
        """Return model, version and variant for the report."""
        return {"model": self.model, "version": self.version, "variant": self.variant}

    def _target(self, path: str, content_type: str, groups: Sequence[Sequence[str]]) -> Target:
        host, headers = _host_header(self.host, self.port), {"Content-Type": content_type}
        bodies = [_body(content_type, [self.pictures[name] for name in group]) for group in groups]
        return Target(
            host=self.host,
            port=self.port,
            requests=[encode_request("POST", path, body, host=host, headers=headers) for body in bodies],
            expected=[tuple(self.classes[name] for name in group) for group in groups],
            answer=INDEX,
        )


def address(url: str) -> tuple[str, int]:
    """Return host and port of `http://HOST:PORT`.

    Raises:
        CompareError: the URL has another form.
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
    """Read the server's model and its class of each picture; its later responses have to agree.

    Raises:
        CompareError: the server can't be reached, or doesn't respond as our service does.
    """
    host, port = address(url)
    try:
        model = _json(host, port, get("/models", host=_host_header(host, port)))["models"][0]
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
    except (MalformedResponseError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CompareError(f"--url {url}: the server doesn't respond as Halftone does ({error!r})") from None
    except OSError as error:
        raise CompareError(f"--url {url}: no server answers there ({error}): start it with `bentoml serve`") from None


def _class(host: str, port: int, picture: bytes) -> int:
    request = post("/classify?top_k=2", picture, host=_host_header(host, port), media_type="image/jpeg")
    first, *others = _json(host, port, request)["predictions"]
    undecided = any(first["probability"] - other["probability"] <= DECIDED for other in others)
    return -1 if undecided else int(first["index"])


def _host_header(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _json(host: str, port: int, request: bytes) -> Any:
    response = fetch(port, request, host=host)
    if response.status != 200:
        line = request.partition(b"\r\n")[0].decode()
        raise ValueError(f"{line}: status {response.status} {response.body[:200].decode(errors='replace')}")
    return json.loads(response.body)


def _body(content_type: str, pictures: Sequence[bytes]) -> bytes:
    if not content_type.startswith("multipart/"):
        return pictures[0]
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="x.jpg"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{_BOUNDARY}--\r\n".encode()
