"""Locust users: `locust -f loadtest/locustfile.py --host http://127.0.0.1:3000`, with web page or `--headless`.

Users send one image, several, images of every size and format, broken ones, or use the Open Inference Protocol; each
waits between two requests. Every response is checked, not only its status: a wrong form, or another class for an image
than in an earlier response of any route, is a failure. Exit code 1 after any failure.

This is a closed loop with many users; for latency at a given rate see `loadtest.sweep`. The file needs locust and
Pillow and nothing else, so that it can be copied to other machines. `--images DIR` names the photos. A run lasts until
Ctrl-C unless it has a limit: `--headless --users 20 --spawn-rate 5 --run-time 1m`.
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
SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
TOP_K = 5
BATCH = 8
DECIDED = 0.05
"""Smallest difference of the two best probabilities at which the class is compared; rounding may swap closer ones."""

RESIZED = 8
"""Photos of which there are other sizes and formats: a quarter of a second and 3 MB each."""

SIDES = (96, 224, 640, 1600)
KINDS: dict[str, dict[str, Any]] = {"JPEG": {}, "PNG": {"compress_level": 1}, "WEBP": {"method": 0}}
"""Formats, and the options with which Pillow encodes them quickly."""

BOUNDARY = "----halftone-locust-7c1f"


@dataclass(frozen=True)
class Picture:
    """Image file to send, and the name under which its class is remembered."""

    name: str
    data: bytes
    kind: str

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of a request whose body is the image."""
        return {"Content-Type": f"image/{self.kind.lower()}"}


class PictureSet:
    """Images of a run, and the class of each in earlier responses.

    Args:
        folder: holds JPEG, PNG or WebP files.
    """

    def __init__(self, folder: Path) -> None:
        kinds = {path: SUFFIXES.get(path.suffix.lower()) for path in sorted(folder.glob("*"))}
        self.photos = [Picture(path.name, path.read_bytes(), kind) for path, kind in kinds.items() if kind]
        self.resized: list[Picture] = []
        """The first photos in every size and format; empty until `resize`."""
        self._classes: dict[str, int] = {}

    def resize(self) -> None:
        """Make the first photos of every size and format.

        Encoding one takes up to a second in which no user gets its answer: during a run it would show as latency.
        """
        for photo in self.photos[:RESIZED]:
            with Image.open(io.BytesIO(photo.data)) as image:
                upright = image.convert("RGB")
            for side in SIDES:
                scale = side / max(upright.size)
                width, height = (max(1, round(length * scale)) for length in upright.size)
                scaled = upright.resize((width, height))
                for kind, options in KINDS.items():
                    file = io.BytesIO()
                    scaled.save(file, kind, **options)
                    self.resized.append(Picture(f"{photo.name}, {side} px {kind}", file.getvalue(), kind))

    def check(self, picture: Picture, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError if the predictions can't be right."""
        probabilities = [float(each["probability"]) for each in predictions]
        if len(predictions) != TOP_K or not all(each["label"] for each in predictions):
            raise ValueError(f"{len(predictions)} predictions instead of {TOP_K} with labels")
        if probabilities != sorted(probabilities, reverse=True) or not 0 < sum(probabilities) <= 1.001:
            raise ValueError(f"these are not probabilities, best first: {probabilities}")
        if not all(math.isfinite(each) and each >= 0 for each in probabilities):
            raise ValueError(f"these are not probabilities: {probabilities}")
        if probabilities[0] - probabilities[1] > DECIDED:
            self.agree(picture, int(predictions[0]["index"]))

    def agree(self, picture: Picture, index: int) -> None:
        """Raise ValueError if an earlier response gave the image another class."""
        before = self._classes.setdefault(picture.name, index)
        if index != before:
            raise ValueError(f"{picture.name}: class {index}, but class {before} before")


PICTURES: PictureSet
"""Filled when locust starts."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Add the options of this file, also to the web page."""
    parser.add_argument("--images", default=str(PHOTOS), help="Folder of photos to send")
    parser.add_argument("--think-min", type=float, default=0.1, help="Least seconds between two requests of a user")
    parser.add_argument("--think-max", type=float, default=1.0, help="Most seconds between two requests of a user")


@events.init.add_listener  # type: ignore[untyped-decorator]
def read_photos(environment: Environment, **_: Any) -> None:
    """Read the images once; exit with 2 if the folder holds none."""
    global PICTURES  # noqa: PLW0603 - locust creates the users itself and offers no place for shared state
    options = environment.parsed_options
    if options is None:
        return
    if not options.host and (options.headless or options.autostart):
        print("error: name the server with --host, such as --host http://127.0.0.1:3000", file=sys.stderr)
        sys.exit(2)
    PICTURES = PictureSet(Path(options.images))
    if not PICTURES.photos:
        print(f"error: --images {options.images} holds no JPEG, PNG or WebP picture", file=sys.stderr)
        sys.exit(2)
    if not 0 <= options.think_min <= options.think_max:
        print("error: --think-min must be at least 0 and at most --think-max", file=sys.stderr)
        sys.exit(2)
    if MixedSizesUser in environment.user_classes:
        PICTURES.resize()


def form(field: str, pictures: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body with each image in a field of that name, and its headers."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="x"\r\n\r\n'.encode()
    body = b"".join(head + picture + b"\r\n" for picture in pictures) + f"--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Client(FastHttpUser):
    """Base class of all users."""

    abstract = True
    numbers = itertools.count(random.randrange(1000))

    def wait_time(self) -> float:
        """Return the seconds to wait before the next request."""
        options = self.environment.parsed_options
        return random.uniform(options.think_min, options.think_max) if options else 0.0

    def photo(self) -> Picture:
        """Return the next photo in turn, over all users."""
        return PICTURES.photos[next(Client.numbers) % len(PICTURES.photos)]

    @contextlib.contextmanager
    def post_checked(
        self, path: str, body: bytes, headers: Mapping[str, str], name: str
    ) -> Iterator[ResponseContextManager]:
        """Post; an error that the block raises about the response becomes a failure in locust."""
        post = self.client.post(path, data=body, headers=dict(headers), name=name, catch_response=True)  # type: ignore[arg-type]
        with post as response:
            try:
                yield response
            except (ValueError, KeyError, TypeError, IndexError) as error:
                response.failure(f"{response.status_code}: {error!r}"[:300])
            else:
                response.success()

    def classify(self, picture: Picture, body: bytes, headers: Mapping[str, str], name: str) -> None:
        """Post one image and check the response."""
        with self.post_checked(f"/classify?top_k={TOP_K}", body, headers, name) as response:
            PICTURES.check(picture, json_of(response)["predictions"])


def json_of(response: ResponseContextManager) -> Any:
    """Return the JSON of a response with 200; raise ValueError for any other response."""
    text = response.text or ""
    if response.status_code != 200:
        raise ValueError(text[:200] or "no response")
    return json.loads(text)


class SingleUser(Client):
    """User that sends one photo per request, as a form or as the body itself."""

    weight = 5

    @task
    def as_form(self) -> None:
        """Post a multipart form, as `curl -F` does."""
        photo = self.photo()
        self.classify(photo, *form("image", [photo.data]), name="/classify, form")

    @task
    def as_body(self) -> None:
        """Post the file as the body, as `curl --data-binary` does."""
        photo = self.photo()
        self.classify(photo, photo.data, photo.headers, name="/classify, body")


class BatchUser(Client):
    """User that sends several photos at once, in half of the requests with one that is no image."""

    weight = 2

    @task
    def several(self) -> None:
        """Post a batch and check that a broken image fails only in its own slot."""
        photos = [self.photo() for _ in range(BATCH)]
        broken = random.choice([None, random.randrange(BATCH)])
        bodies = [b"no picture" if i == broken else photo.data for i, photo in enumerate(photos)]
        path = f"/classify_batch?top_k={TOP_K}"
        with self.post_checked(path, *form("images", bodies), "/classify_batch") as response:
            results = json_of(response)["results"]
            if [i for i, result in enumerate(results) if "error" in result] != [broken][: broken is not None]:
                raise ValueError(f"errors in other slots than {broken}: {results}")
            for i, photo in enumerate(photos):
                if i != broken:
                    PICTURES.check(photo, results[i]["predictions"])


class MixedSizesUser(Client):
    """User that sends thumbnails and large images in every format."""

    weight = 3

    @task
    def any_size(self) -> None:
        """Post one image of a random size and format."""
        picture = random.choice(PICTURES.resized)
        self.classify(picture, picture.data, picture.headers, name="/classify, any size")


class BadPicturesUser(Client):
    """User that sends damaged images or other data and expects an error response."""

    weight = 1

    @task
    def bad(self) -> None:
        """Post text, a bare signature, half an image or an unsupported format."""
        whole = self.photo().data
        body = random.choice([b"no picture", b"\xff\xd8\xff", whole[: len(whole) // 2], b"GIF89a" + bytes(100)])
        with self.post_checked("/classify", body, {}, "/classify, bad picture") as response:
            error = json.loads(response.text or "")["error"]
            if response.status_code not in (400, 415) or not error["code"] or not error["message"]:
                raise ValueError(f"{response.text!r} instead of an error 400 or 415")


class OpenInferenceUser(Client):
    """User of the Open Inference Protocol that sends the image as a binary tensor."""

    weight = 2

    def on_start(self) -> None:
        """Look up the model's name."""
        self.path = f"/v2/models/{self.client.get('/models').json()['models'][0]['name']}/infer"

    @task
    def infer(self) -> None:
        """Post one image and check that the best classes are those of /classify."""
        photo = self.photo()
        element = len(photo.data).to_bytes(4, "little") + photo.data
        size = {"binary_data_size": len(element)}
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": size}
        output = {"name": "probabilities", "parameters": {"classification": TOP_K}}
        head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        with self.post_checked(self.path, head + element, headers, "/v2/models/NAME/infer") as response:
            rows = [each.split(":", 2) for each in json_of(response)["outputs"][0]["data"]]
            PICTURES.check(photo, [{"probability": row[0], "index": row[1], "label": row[2]} for row in rows])
