"""Users for locust: `locust -f loadtest/locustfile.py --host http://127.0.0.1:3000`, web page or `--headless`.

People who send one picture, several, pictures of every size and kind, broken ones, and clients of the Open Inference
Protocol; each thinks between two requests. Every answer is checked, not only its status: one of the wrong form, or with
another class for a picture than before or by another way of asking, is a failure. Exit code 1 where anything failed.

This is a closed loop, which shows how the service treats a crowd; for latency at a given rate see `loadtest.sweep`.
The file needs locust and Pillow and nothing else, so that it can be copied to other machines. `--images DIR` names the
photos. A run without an end goes on until Ctrl-C: `--headless --users 20 --spawn-rate 5 --run-time 1m` has one.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import ResponseContextManager
from locust.env import Environment
from PIL import Image

PHOTOS = Path(__file__).parents[1] / "export" / "photos"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
TOP_K = 5
BATCH = 8
DECIDED = 0.05
"""Between the two best probabilities; any rounding may swap classes that are nearer to each other."""

SIDES = (96, 224, 640, 1600)
KINDS = ("JPEG", "PNG", "WEBP")
BOUNDARY = "----halftone-locust-7c1f"


@dataclass(frozen=True)
class Picture:
    """A file to send, and the name that its class is remembered by."""

    name: str
    data: bytes


class Stock:
    """The pictures of a run, and what has been answered to them.

    Args:
        folder: of JPEG, PNG or WebP files.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        self.photos = [Picture(path.name, path.read_bytes()) for path in paths]
        self._answers: dict[str, int] = {}
        self._resized: dict[tuple[str, int, str], Picture] = {}

    def resized(self, photo: Picture, side: int, kind: str) -> Picture:
        """The photo at a longest side of `side` pixels, as a file of that kind."""
        key = photo.name, side, kind
        if key not in self._resized:
            with Image.open(io.BytesIO(photo.data)) as image:
                upright = image.convert("RGB")
            scale = side / max(upright.size)
            size = [max(1, round(length * scale)) for length in upright.size]
            file = io.BytesIO()
            upright.resize((size[0], size[1])).save(file, kind)
            self._resized[key] = Picture(f"{photo.name}, {side} px {kind}", file.getvalue())
        return self._resized[key]

    def check(self, picture: Picture, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError where the predictions can't be right."""
        probabilities = [float(each["probability"]) for each in predictions]
        if len(predictions) != TOP_K or not all(each["label"] for each in predictions):
            raise ValueError(f"{len(predictions)} predictions where {TOP_K} with labels were asked for")
        if probabilities != sorted(probabilities, reverse=True) or not 0 < sum(probabilities) <= 1.001:
            raise ValueError(f"these are no probabilities, best first: {probabilities}")
        if not all(math.isfinite(each) and each >= 0 for each in probabilities):
            raise ValueError(f"these are no probabilities: {probabilities}")
        if probabilities[0] - probabilities[1] > DECIDED:
            self.agree(picture, int(predictions[0]["index"]))

    def agree(self, picture: Picture, index: int) -> None:
        """Raise ValueError where the picture was given another class before."""
        before = self._answers.setdefault(picture.name, index)
        if index != before:
            raise ValueError(f"{picture.name}: class {index}, but class {before} before")


STOCK: Stock
"""Filled when locust starts."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Options of this file, also on the web page."""
    parser.add_argument("--images", default=str(PHOTOS), help="Folder of photos to send")
    parser.add_argument("--think-min", type=float, default=0.1, help="Least seconds between two requests of a user")
    parser.add_argument("--think-max", type=float, default=1.0, help="Most seconds between two requests of a user")


@events.init.add_listener  # type: ignore[untyped-decorator]
def read_photos(environment: Environment, **_: Any) -> None:
    """Read the pictures once; a folder without any ends locust."""
    global STOCK  # noqa: PLW0603 - locust makes the users itself, and has no other place for what they share
    options = environment.parsed_options
    if options is None:
        return
    STOCK = Stock(Path(options.images))
    if not STOCK.photos:
        print(f"error: --images {options.images} holds no JPEG, PNG or WebP picture", file=sys.stderr)
        sys.exit(2)
    if not 0 <= options.think_min <= options.think_max:
        print("error: --think-min must be at least 0 and at most --think-max", file=sys.stderr)
        sys.exit(2)


def form(field: str, pictures: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart body with each picture in a field of that name, and its headers."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="x"\r\n\r\n'.encode()
    body = b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Client(FastHttpUser):
    """What all users share."""

    abstract = True
    turns = itertools.count(random.randrange(1000))

    def wait_time(self) -> float:
        """Seconds to think."""
        options = self.environment.parsed_options
        return random.uniform(options.think_min, options.think_max) if options else 0.0

    def photo(self) -> Picture:
        """The next photo in turn, over all users."""
        return STOCK.photos[next(Client.turns) % len(STOCK.photos)]

    @contextlib.contextmanager
    def ask(self, path: str, body: bytes, headers: Mapping[str, str], name: str) -> Iterator[ResponseContextManager]:
        """Post; what the block raises about the answer becomes locust's failure."""
        post = self.client.post(path, data=body, headers=dict(headers), name=name, catch_response=True)  # type: ignore[arg-type]
        with post as response:
            try:
                yield response
            except (ValueError, KeyError, TypeError, IndexError) as error:
                response.failure(f"{response.status_code}: {error!r}"[:300])
            else:
                response.success()

    def classify(self, picture: Picture, body: bytes, headers: Mapping[str, str], name: str) -> None:
        """Post one picture and check the answer."""
        with self.ask(f"/classify?top_k={TOP_K}", body, headers, name) as response:
            STOCK.check(picture, answered(response)["predictions"])


def answered(response: ResponseContextManager) -> Any:
    """The JSON of an answer with 200; raises ValueError else."""
    text = response.text or ""
    if response.status_code != 200:
        raise ValueError(text[:200] or "no answer")
    return json.loads(text)


class SingleUser(Client):
    """Sends one photo at a time, as a form or as the body itself."""

    weight = 5

    @task
    def as_form(self) -> None:
        """As curl -F does."""
        photo = self.photo()
        self.classify(photo, *form("image", [photo.data]), name="/classify, form")

    @task
    def as_body(self) -> None:
        """As curl --data-binary does."""
        photo = self.photo()
        self.classify(photo, photo.data, {"Content-Type": "image/jpeg"}, name="/classify, body")


class BatchUser(Client):
    """Sends several photos at once, now and then one that is none among them."""

    weight = 2

    @task
    def several(self) -> None:
        """A broken one spoils only its own slot."""
        photos = [self.photo() for _ in range(BATCH)]
        broken = random.choice([None, random.randrange(BATCH)])
        bodies = [b"no picture" if i == broken else photo.data for i, photo in enumerate(photos)]
        path = f"/classify_batch?top_k={TOP_K}"
        with self.ask(path, *form("images", bodies), "/classify_batch") as response:
            results = answered(response)["results"]
            if [i for i, result in enumerate(results) if "error" in result] != [broken][: broken is not None]:
                raise ValueError(f"errors in other slots than {broken}: {results}")
            for i, photo in enumerate(photos):
                if i != broken:
                    STOCK.check(photo, results[i]["predictions"])


class MixedSizesUser(Client):
    """Sends thumbnails and large pictures, in every format."""

    weight = 3

    @task
    def any_size(self) -> None:
        """One picture of a random size and kind."""
        kind = random.choice(KINDS)
        picture = STOCK.resized(self.photo(), random.choice(SIDES), kind)
        self.classify(picture, picture.data, {"Content-Type": f"image/{kind.lower()}"}, name="/classify, any size")


class BadPicturesUser(Client):
    """Sends what is no picture, or a damaged one, and expects to be told so."""

    weight = 1

    @task
    def bad(self) -> None:
        """Text, nothing, half a picture, a kind that is not taken."""
        whole = self.photo().data
        body = random.choice([b"no picture", b"\xff\xd8\xff", whole[: len(whole) // 2], b"GIF89a" + bytes(100)])
        with self.ask("/classify", body, {}, "/classify, bad picture") as response:
            error = json.loads(response.text or "")["error"]
            if response.status_code not in (400, 415) or not error["code"] or not error["message"]:
                raise ValueError(f"{response.text!r} where an error 400 or 415 was expected")


class OpenInferenceUser(Client):
    """Asks by the Open Inference Protocol, with the picture as a binary tensor."""

    weight = 2

    def on_start(self) -> None:
        """Find the model's name."""
        self.path = f"/v2/models/{self.client.get('/models').json()['models'][0]['name']}/infer"

    @task
    def infer(self) -> None:
        """The best classes are those of /classify."""
        photo = self.photo()
        element = len(photo.data).to_bytes(4, "little") + photo.data
        size = {"binary_data_size": len(element)}
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": size}
        output = {"name": "probabilities", "parameters": {"classification": TOP_K}}
        head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        with self.ask(self.path, head + element, headers, "/v2/models/NAME/infer") as response:
            rows = [each.split(":", 2) for each in answered(response)["outputs"][0]["data"]]
            STOCK.check(photo, [{"probability": row[0], "index": row[1], "label": row[2]} for row in rows])
