import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.preprocess.errors import BrokenImageError
from models.spec import InputSpec
from tests.training.samples import picture
from training.data.pictures import ArrayPictures
from training.evaluation.temperature import Calibration
from training.report.page import write_report

NASTY = "<script>alert('x')</script>"
LABELS = (NASTY, "$price$ & more", "猫")


class Partly(ArrayPictures):
    """Images of which the first can't be read."""

    def read(self, index):
        if index == 0:
            raise BrokenImageError("damaged")
        return super().read(index)


KEPT = Calibration(fitted=0.7, pictures=30, p=0.001)


def report(
    folder: Path,
    *,
    count: int = 30,
    labels: tuple[str, ...] = LABELS,
    epochs: int = 3,
    wrong: int = 4,
    calibration: Calibration | None = KEPT,
    chosen_here: bool = True,
    promises: dict | None = None,
) -> str:
    targets = np.arange(count, dtype=np.int64) % len(labels)
    logits = np.random.default_rng(0).normal(0, 0.3, (count, len(labels))).astype(np.float32)
    logits[np.arange(count), targets] += 3
    logits[np.arange(wrong), (targets[:wrong] + 1) % len(labels)] += 6
    images = np.stack([picture(seed, width=20, height=20) for seed in range(count)])
    history = [
        {"epoch": epoch + 1, "lr": 1e-3 / (epoch + 1), "train_loss": 2 / (epoch + 1), "val_loss": 1.5 / (epoch + 1),
         "val_top1": 0.5 + epoch / 10, "val_top5": 0.9, "images_per_second": 100.0, "seconds": 61.0}
        for epoch in range(epochs)
    ]  # fmt: skip
    path = write_report(
        folder,
        history=history,
        logits=logits,
        targets=targets,
        labels=labels,
        pictures=Partly(labels=labels, targets=targets, images=images, title="picture <b>"),
        spec=InputSpec(size=16),
        calibration=calibration,
        promises=promises,
        chosen_here=chosen_here,
        title=f"model {NASTY}",
        config={
            "model": "resnet18",
            "recipe": "quick",
            "data": "x&y",
            "settings": {"epochs": epochs, "deep": {"er": 1}},
        },
        following="python -m export --model 'a<b>'",
    )
    assert path == folder / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    report(folder)
    return folder


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(text):
    parser = Collector()
    parser.feed(text)
    assert parser.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parser.tags}
    sources = [attributes["src"] for tag, attributes in parser.tags if tag == "img"]
    assert len(sources) == 3 + 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"(src|href)=\"?(http|//|file)|url\(|@import", text)
    for source in sources:
        Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).verify()


def test_text_from_data_is_escaped(text):
    assert NASTY not in text
    assert "&lt;script&gt;" in text
    assert "picture &lt;b&gt;" in text
    assert "$price$ &amp; more" in text
    assert "猫" in text


@pytest.mark.parametrize(
    ("label", "escaped"),
    [("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"), ("\"&'", "&#34;&amp;&#39;")],
)
def test_a_label_is_escaped_in_every_place(tmp_path, label, escaped):
    text = report(tmp_path, labels=(label, "cat"))

    assert label not in text
    # Every image of the label that is taken for a cat, and the other way round: in the class table as class and as
    # confusion, in the table of confusions on either side, and in the captions of the three readable mistakes.
    assert text.count(f"<td>{escaped}</td>") == 4
    assert text.count(f"<b>{escaped}</b>") + text.count(f"is {escaped} ") == 3


def test_it_shows_figures_mistakes_and_settings(text):
    for expected in (
        "86.67%",
        "settings.deep.er",
        "temperature",
        "Worst mistakes",
        "model resnet18",
        "3 min",
        "majority baseline",
        "33.33%",
        "also chose the epoch",
    ):
        assert expected in text


def test_promises_are_shown_as_measured_on_the_other_half(tmp_path, text):
    promises = {
        "images": 50, "fitted_on": 50, "promised_error": 0.01, "promised_coverage": 0.95, "answered": None,
        "error": None, "coverage": {"value": 0.96, "low": 0.9, "high": 0.99}, "set_size": 1.5, "unfamiliar": None,
    }  # fmt: skip
    shown = report(tmp_path, promises=promises)

    assert "the true class in 96.00% (90.00% to 99.00%), 1.50 classes on average; promised 95%" in shown
    assert "fitted on 50 of these pictures" in shown
    assert "Promises" not in text


def test_it_shows_the_next_command(text):
    assert "<code>python -m export --model &#39;a&lt;b&gt;&#39;</code>" in text


def test_the_calibration_error_is_shown_beside_what_chance_makes(folder, text):
    metrics = json.loads((folder / "metrics.json").read_text())["after_calibration"]
    assert 0 < metrics["ece_by_chance"] < 0.2
    assert f"{metrics['ece_by_chance']:.2%} by chance alone; " in text
    assert "Served with temperature 0.7, fitted on 30 held-out pictures (p = 0.001): these pictures" in text


def test_a_temperature_that_was_not_kept_is_named(tmp_path):
    text = report(tmp_path, calibration=Calibration(fitted=1.08, pictures=28, p=0.4))
    assert "temperature 1: one of 1.08, fitted on 28 held-out pictures (p = 0.4), would gain no more than noise" in text
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["temperature"] == 1
    assert metrics["before_calibration"] == metrics["after_calibration"]


@pytest.mark.parametrize("chosen_here", [True, False])
def test_of_calibrated_predictions_only_what_is_known_is_said(tmp_path, chosen_here):
    text = report(tmp_path, calibration=None, chosen_here=chosen_here)
    assert ("also chose the epoch and the temperature" in text) == chosen_here
    assert "of calibrated predictions" in text
    assert "fitted on" not in text


def test_an_unreadable_mistake_is_left_out(text):
    assert text.count("<figure>") == 3


def test_the_drawings_and_the_figures_are_files_too(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.png", "curves.png", "index.html", "metrics.json", "reliability.png", "schedule.png"
    ]  # fmt: skip
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 300
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["temperature"] == 0.7
    assert metrics["after_calibration"]["top1"]["value"] == pytest.approx(26 / 30)
    assert metrics["before_calibration"]["ece"] != metrics["after_calibration"]["ece"]
    assert len(metrics["history"]) == 3


def test_no_history_no_mistakes(tmp_path):
    text = report(tmp_path, epochs=0, wrong=0)
    assert "every validation picture was classified correctly" in text
    assert "Learning rate" not in text
    assert not (tmp_path / "curves.png").exists()


def test_many_classes_and_few_pictures(tmp_path):
    labels = tuple(f"class number {index} with a rather long name" for index in range(120))
    text = report(tmp_path, labels=labels, count=60, epochs=1)
    assert text.count("<tr>") > 120


def test_the_same_report_again_replaces_it(tmp_path):
    assert report(tmp_path) == report(tmp_path)
