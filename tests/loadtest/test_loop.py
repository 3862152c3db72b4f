"""The whole loop in small: served, collected, labelled, trained again, rolled out; and its parts."""

import io
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from loadtest.loop import __main__ as loop
from loadtest.loop.annotator import LabelStudio, exported, recognise
from loadtest.loop.pictures import prepare
from loadtest.reporting.cli import CompareError, PeerError
from loadtest.reporting.intervals import mcnemar, wilson
from models.common.statistics import mcnemar_p, rate
from tests.commands import run
from tests.servers import QUICK, ROOT, environment

SAMPLE = ROOT / "training" / "sample"
KIND = "Bag"
SHORT = {
    "training": ("training", ("--crop-fraction", 1, "--folds", 0)),
    "export": ("export.onnx", ("--precision", "fp32")),
}
"""Command to what stands for it, with flags that make it take seconds."""


def in_this_process(module: str, *arguments: object, environment: Mapping[str, str]) -> str:
    """`loadtest.loop.commands.command` without a new interpreter, which would import PyTorch, and for one variant."""
    module, short = SHORT.get(module, (module, ()))
    # Drawing the report takes half the time of a run this small.
    with mock.patch("matplotlib.figure.Figure.savefig", lambda figure, file, **options: file.write(b"drawing")):
        told = run(module, *arguments, *short, env=ENVIRONMENT | environment)
    assert told.returncode == 0, told.stderr
    return told.stdout


ENVIRONMENT = environment(None)


def test_the_loop_in_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loop, "command", in_this_process)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    config = loop.Loop(
        data=few(tmp_path / "few"), name=KIND, size=32, requests=120, labels=40, output=tmp_path / "loop"
    )

    loop.main(config)

    findings = json.loads((tmp_path / "loop.json").read_text())
    values = {figure["name"]: figure["value"] for figure in findings["figures"]}
    assert values["requests without an answer"] == 0
    assert 0 < values[f"of them {KIND}"] < values["labelled"] <= 40
    assert values["canary"] == "promoted by rule"
    assert len(json.loads(values["answers by version"])) == 2
    assert (
        (tmp_path / "loop.md")
        .read_text()
        .startswith(f"# Collect, label, train again, roll out: dark pictures of {KIND}")
    )


def few(folder: Path) -> Path:
    """Three classes of the sample pictures."""
    for part, count in (("train", 30), ("val", 15)):
        for label in (KIND, "Trouser", "Sneaker"):
            (folder / part / label).mkdir(parents=True)
            for path in sorted((SAMPLE / part / label).iterdir())[:count]:
                (folder / part / label / path.name).symlink_to(path)
    return folder


def brightness(data: bytes) -> float:
    with Image.open(io.BytesIO(data)) as image:
        return float(np.asarray(image).mean())


def test_dark_pictures_of_the_class_are_sent_and_held_out_and_never_trained_on(tmp_path: Path) -> None:
    pictures = prepare(SAMPLE, tmp_path, KIND, requests=300, seed=1)

    trained = [(path.parent.name, path.stem.endswith("-dark")) for path in tmp_path.glob("*/*/*.png")]
    assert (KIND, True) not in trained
    assert (KIND, False) in trained
    assert trained.count(("Trouser", True)) == trained.count(("Trouser", False)) > 0
    assert {(each.label, each.dark) for each in pictures.kind} == {(KIND, True)}
    assert (KIND, True) not in {(each.label, each.dark) for each in pictures.others}
    sent = [each for each in pictures.sent if each.label == KIND and each.dark]
    assert 30 < len(sent) < 100
    assert max(brightness(each.data) for each in sent) < 60
    again = prepare(SAMPLE, tmp_path / "again", KIND, requests=300, seed=1)
    assert again == pictures
    in_training = {path.read_bytes() for path in tmp_path.glob("train/*/*.png")}
    assert not in_training & {each.data for each in (*pictures.sent, *pictures.kind, *pictures.others)}


@pytest.mark.parametrize("name", ["Hat", "../train/Bag"])
def test_a_class_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CompareError, match="must hold train/CLASS and val/CLASS"):
        prepare(SAMPLE, tmp_path, name, requests=1, seed=0)


def test_the_annotator_recognises_pictures_that_were_encoded_again(tmp_path: Path) -> None:
    pictures = prepare(SAMPLE, tmp_path, KIND, requests=60, seed=0).sent
    tasks = []
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        Image.open(io.BytesIO(picture.data)).save(tmp_path / "pictures" / f"{number}.jpg", quality=95, subsampling=0)
        tasks.append({"data": {"image": f"/data/local-files/?d=pictures/{number}.jpg"}})

    assert recognise(tasks, tmp_path, pictures) == [each.label for each in pictures]


class Studio(BaseHTTPRequestHandler):
    """The part of Label Studio's API that a run uses, as version 1.23 answers it."""

    tasks: list[dict[str, Any]]
    seen: list[str]

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(f"POST {path}")
        if path == "/api/token/refresh/":
            return self._answer({"access": "short"})
        if self.headers["Authorization"] not in ("Bearer short", "Token legacy"):
            return self._answer({"detail": "Invalid token."}, 401)
        if path.endswith("/import"):
            self.tasks += [{"id": 7 + number, "annotations": []} | task for number, task in enumerate(body)]
        if path.endswith("/annotations/"):
            (task,) = (each for each in self.tasks if each["id"] == int(path.split("/")[3]))
            task["annotations"].append({"completed_by": 1, **body})
        return self._answer({"id": 3}, 201)

    def do_GET(self) -> None:
        self.seen.append(f"GET {urlsplit(self.path).path}")
        tasks = self.tasks[::-1]
        self._answer(tasks if "export" in self.path else {"tasks": tasks})

    def _answer(self, body: Any, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def studio() -> Iterator[str]:
    Studio.tasks, Studio.seen = [], []
    server = HTTPServer(("127.0.0.1", 0), Studio)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("token", ["legacy", "a.personal.token"])
def test_label_studio_labels_by_its_api(studio: str, tmp_path: Path, token: str) -> None:
    tasks = [{"data": {"image": f"/data/local-files/?d=pictures/{number}.jpg"}} for number in range(3)]
    labels = ["Bag", "Coat", "Bag"]

    found = LabelStudio(studio, token).label(tasks, "<View/>", tmp_path, labels)

    by_picture = {each["data"]["image"]: each["annotations"] for each in found}
    for task in exported(tasks, labels):
        assert by_picture[task["data"]["image"]] == task["annotations"]
    assert Studio.seen[-7:] == [
        "POST /api/storages/localfiles/",
        "POST /api/projects/3/import",
        "GET /api/tasks/",
        *(f"POST /api/tasks/{number}/annotations/" for number in (9, 8, 7)),
        "GET /api/projects/3/export",
    ]


def test_label_studio_that_refuses_or_is_not_there_is_said(studio: str, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"refuses POST projects with 401: .*Invalid token.* give the token"):
        LabelStudio(studio, "wrong").label([], "<View/>", tmp_path, [])
    with pytest.raises(PeerError, match="does not answer"):
        LabelStudio("http://127.0.0.1:9", "a").label([], "<View/>", tmp_path, [])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 6), (5, 9), (30, 12)])
def test_intervals_and_tests_are_those_of_the_proof(first: int, second: int) -> None:
    total = first + second + 3
    expected = rate(first, total)

    assert mcnemar(first, second) == pytest.approx(mcnemar_p(first, second))
    assert wilson(first, total) == pytest.approx((expected["low"], expected["high"]))


def test_label_studio_needs_a_folder_that_it_can_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABEL_STUDIO_TOKEN", "a")
    with pytest.raises(CompareError, match="--label-studio needs --work"):
        loop.Loop(data=SAMPLE, label_studio="http://127.0.0.1:8080")
    with pytest.raises(CompareError, match="exists: name a new folder"):
        loop.Loop(data=SAMPLE, work=tmp_path)


def test_figures_say_what_was_missed() -> None:
    worse = loop._accuracy("others", [True] * 20, [True] * 10 + [False] * 10, better=False)
    same = loop._accuracy("kind", [True] * 20, [True] * 20, better=True)

    assert [figure.holds for figure in (*worse, *same)] == [True, True, False, True, True, False]
