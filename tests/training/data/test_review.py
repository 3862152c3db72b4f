"""Collected pictures to tasks for Label Studio, and the exports of labelling tools to a table."""

import csv
import io
import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.preprocess.collected import Answer, encode, file_name
from tests.commands import run
from training.data.review.order import spread_order

EXPORT = Path(__file__).with_name("label_studio_export.json")
"""What Label Studio 1.23 exported of five tasks of this command, after two annotators had labelled them by its API.
Both agree on three, disagree on the second, and one skipped the fourth."""

OTHER_LABEL = "dog & <cat>"


def photo(seed: int) -> np.ndarray:
    """A smooth picture of its own, uint8 (64, 64, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC))


def collect(folder: Path, pixels: np.ndarray, probability: float, **values: object) -> str:
    """Put a picture into a folder as the service does; return its name."""
    predictions = (("cat", probability), (OTHER_LABEL, 1 - probability))
    answer = Answer(
        **{  # type: ignore[arg-type]
            "model": "pets", "version": "1a2b", "variant": "openvino-fp32", "time": "2026-11-24T12:00:00+00:00",
            "reason": "unconfident", "predictions": predictions, **values,
        }
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / file_name(pixels)).write_bytes(encode(pixels, answer))
    return file_name(pixels)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of collected pictures, and their names by what they are."""
    folder = tmp_path_factory.mktemp("collected") / "kept"
    copy = photo(1).copy()
    copy[0, 0] ^= 1
    names = {
        "doubted": collect(folder, photo(1), 0.501),
        "its copy": collect(folder, copy, 0.502),
        "half sure": collect(folder, photo(2), 0.7),
        "foreign": collect(folder, photo(3), 0.99, unfamiliar=True, reason="unfamiliar"),
        "sure": collect(folder, photo(4), 0.99, reason="random"),
    }
    (folder / "notes.txt").write_text("none of them")
    return folder, names


def test_tasks_come_in_the_order_that_teaches_most(collected: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, names = collected
    told = run("training.data.review", "--from", folder, "--to", tmp_path / "review" / "tasks.json", "--most", 4)

    assert told.returncode == 0, told.stderr
    tasks = json.loads((tmp_path / "review" / "tasks.json").read_text())
    order = [task["data"]["image"].removeprefix("/data/local-files/?d=pictures/") for task in tasks]
    assert order[0] == names["foreign"]
    assert names["half sure"] in order[:3]
    assert len({names["doubted"], names["its copy"]} & set(order[:3])) == 1
    assert {path.name for path in (tmp_path / "review" / "pictures").iterdir()} == set(order)
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "pets 1a2b openvino-fp32"
    assert prediction["result"][0]["value"] == {"choices": ["cat"]}
    interface = ElementTree.parse(tmp_path / "review" / "tasks.xml")
    assert [choice.attrib["value"] for choice in interface.iter("Choice")] == ["cat", OTHER_LABEL]


def test_tasks_are_not_written_over(collected: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "tasks.json").touch()

    refused = run("training.data.review", "--from", collected[0], "--to", tmp_path / "tasks.json")

    assert refused.returncode == 2
    assert "may be labelled already" in refused.stderr


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_order_names_each_picture_once(count: int, most: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    uncertain, components = generator.random(count), generator.normal(size=(count, 3)).astype(np.float32)
    components[count // 2 :] = components[0]

    order = spread_order(uncertain, components, most=most)

    assert len(order) == len(set(order)) == min(count, most)
    assert order[0] == int(uncertain.argmax())


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def test_an_export_of_label_studio_becomes_a_table(tmp_path: Path) -> None:
    tasks = json.loads(EXPORT.read_text())
    names = [task["data"]["image"].removeprefix("/data/local-files/?d=pictures/") for task in tasks]
    for seed, name in enumerate(names):
        found = collect(tmp_path / "pictures", photo(seed), 0.9)
        (tmp_path / "pictures" / found).rename(tmp_path / "pictures" / name)
    (tmp_path / "export.json").write_bytes(EXPORT.read_bytes())

    told = run("training.data.review", "--from", tmp_path / "export.json", "--to", tmp_path / "labels.csv", "--json")

    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == {"labels": 4, "undecided": [f"pictures/{names[1]}"], "model_was_right": 2}
    both = {"split": "train", "annotator": "1;2", "agreement": "1.0"}
    assert rows(tmp_path / "labels.csv") == [
        {"path": f"pictures/{names[0]}", "label": "cat"} | both,
        {"path": f"pictures/{names[2]}", "label": OTHER_LABEL} | both,
        {"path": f"pictures/{names[3]}", "label": OTHER_LABEL} | both | {"annotator": "1"},
        {"path": f"pictures/{names[4]}", "label": "cat"} | both,
    ]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><owner><username>ada</username><email>ada@example.org</email></owner><assignee><username>bo</username></assignee></task></meta>
<image id="0" name="a.jpg" width="8" height="8"><tag label="cat" source="manual"></tag></image>
<image id="1" name="sub/b.jpg" width="8" height="8"><tag label="dog" source="manual"></tag></image>
<image id="2" name="c.jpg" width="8" height="8"></image>
</annotations>"""


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_of_cvat_becomes_a_table(tmp_path: Path, packed: bool) -> None:
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / name).touch()
    export = tmp_path / ("task.zip" if packed else "annotations.xml")
    if packed:
        with zipfile.ZipFile(export, "w") as archive:
            archive.writestr("annotations.xml", CVAT)
    else:
        export.write_text(CVAT)

    told = run("training.data.review", "--from", export, "--to", tmp_path / "labels.csv")

    assert told.returncode == 0, told.stderr
    assert rows(tmp_path / "labels.csv") == [
        {"path": "pictures/a.jpg", "label": "cat", "split": "train", "annotator": "bo", "agreement": "1.0"},
        {"path": "pictures/sub/b.jpg", "label": "dog", "split": "train", "annotator": "bo", "agreement": "1.0"},
    ]


def packed_nonsense() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("export.json", b"{", "is no export that can be read"),
        ("export.json", b"[1]", "is no export that can be read"),
        ("export.json", b"[]", "holds no labels"),
        ("export.xml", b"<annotations>", "is no export that can be read"),
        (
            "export.xml",
            CVAT.replace("</tag>", '</tag><tag label="x"/>').encode(),
            "has the classes cat, x",
        ),
        ("export.xml", CVAT.encode(), "the picture a.jpg is not in"),
        ("export.zip", b"PK", "is no export that can be read"),
        ("export.zip", packed_nonsense(), "is no export that can be read"),
        ("export.txt", b"", "is neither a folder nor an export"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)

    refused = run("training.data.review", "--from", tmp_path / name, "--to", tmp_path / "labels.csv")

    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (tmp_path / "labels.csv").exists()
