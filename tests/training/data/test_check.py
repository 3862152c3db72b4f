"""The check's report: what is planted is found, and the table comes back as data."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training
from models.common.errors import HalftoneError
from tests.commands import run
from tests.training.memory import CropPictures, crop, photo
from training.data.__main__ import DataConfig
from training.data.check.features import Extractor
from training.data.check.inspection import inspect
from training.data.check.labels import judge_labels, stratified_folds
from training.data.check.outliers import find_outliers
from training.data.check.page import alike_classes, write_inspection
from training.data.check.problems import doublets, verdicts
from training.data.check.sizes import measure_sizes
from training.data.load import load_data
from training.data.pictures import ArrayPictures, Data
from training.data.subsets import JoinedPictures

SAMPLE = Path(training.__file__).parent / "sample"


@pytest.fixture(scope="module")
def sample():
    """Components and classes of the 700 sample pictures."""
    data = load_data(str(SAMPLE))
    pictures, extractor = JoinedPictures(data.train, data.val), Extractor()
    for index in range(len(pictures)):
        extractor.add(pictures.read(index))
    return extractor.components(), pictures.targets


def swapped(targets, share, seed):
    """Wrong classes for a share of the pictures, and which they are."""
    generator = np.random.default_rng(seed)
    bad = generator.choice(len(targets), int(share * len(targets)), replace=False)
    planted = targets.copy()
    planted[bad] = (targets[bad] + generator.integers(1, 10, len(bad))) % 10
    return planted, bad


def test_swapped_labels_are_found(sample):
    components, targets = sample
    alone, figures = np.arange(len(targets)), []
    for seed in range(40):
        planted, bad = swapped(targets, 0.05, seed)
        judgement = judge_labels(components, planted, alone, classes=10)
        found = np.intersect1d(judgement.wrong, bad)
        right = (judgement.suggested[found] == targets[found]).mean()
        figures.append((len(found) / len(bad), len(found) / len(judgement.wrong), right))
    recall, precision, right = np.mean(figures, axis=0)

    assert recall >= 0.8
    assert precision >= 0.8
    assert right >= 0.8


def test_labels_of_a_tiny_class_are_not_judged(sample):
    components, targets = sample
    few = np.flatnonzero((targets != 3) | (np.cumsum(targets == 3) <= 4))
    judgement = judge_labels(components[few], targets[few], np.arange(len(few)), classes=10)

    assert not judgement.odds[targets[few] == 3].any()
    assert judgement.confusion[3].sum() == judgement.confusion[:, 3].sum() == 0
    assert judgement.accuracy > 0.8
    none = judge_labels(components[:8], targets[:8], np.arange(8), classes=10)
    assert none.wrong.size == 0
    assert none.accuracy == 0


def test_folds_hold_a_share_of_every_class_and_keep_doublets_together():
    targets = np.repeat([0, 1], [40, 10])
    groups = np.arange(50)
    groups[[1, 2, 3]] = 0
    folds = stratified_folds(targets, groups, seed=0)

    assert len(set(folds[:4])) == 1
    assert np.bincount(folds[40:]).tolist() == [2] * 5
    assert set(np.bincount(folds[3:40])) <= {7, 8}


def test_an_outlier_is_far_from_all_and_a_doublet_is_no_neighbour():
    points = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    points[[7, 8]] = 40
    groups = np.arange(300)
    groups[8] = 7

    assert find_outliers(points, groups) == [7, 8]
    assert find_outliers(points[:4], groups[:4]) == []


def test_narrow_and_small_pictures_stand_out():
    sizes = measure_sizes(np.array([[100, 100], [100, 120], [90, 300], [20, 20]]))

    assert sizes.odd == {2: "narrow: 300 x 90", 3: "small: 20 x 20"}
    assert sizes.spread[0] == ("width", 20, 110, 300)


def saved(file, pixels, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Crops of photographs with doublets, a broken file and a class whose name is markup."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(24):
        part, label = "val" if number % 4 == 3 else "train", ("<b>one", "two")[number % 2]
        pixels = crop(photo(number % 2), 100, generator)
        saved(root / part / label / f"{number:02d}.png", pixels)
    original = Image.open(root / "train" / "<b>one" / "00.png")
    saved(root / "train" / "two" / "equal.png", np.asarray(original))
    saved(root / "val" / "<b>one" / "small.jpg", np.asarray(original.resize((70, 70))), quality=60)
    mirrored = np.asarray(Image.open(root / "train" / "two" / "01.png"))[:, ::-1]
    saved(root / "train" / "two" / "mirrored.png", np.ascontiguousarray(mirrored))
    (root / "train" / "two" / "broken.png").write_bytes(b"")
    return root


def test_doublets_are_found_within_and_across_parts(photos):
    data = load_data(str(photos))
    inspection = inspect(data)
    found = [(each.kind, each.conflict, data.train.name(each.first[1])) for each in doublets(data, inspection)]

    assert found == [
        ("equal", "two labels", "<b>one/00.png"),
        ("near", "two parts", "<b>one/00.png"),
        ("near", "", "two/01.png"),
    ]
    assert list(inspection.reading.broken) == [("training", 18)]
    assert verdicts(data, inspection)["training", 18].problems == ["broken"]


def test_the_report_shows_the_pictures_and_its_table_comes_back_as_data(photos, tmp_path):
    result = run("training.data", "--data", photos, "--check", "--report", tmp_path / "out")

    assert result.returncode == 1, result.stderr
    assert re.search(
        r"labels are probably wrong: a linear probe, trained on the other pictures, agrees with \d+\.\d% of the 27 "
        r"labels that were judged\n",
        result.stdout,
    )
    assert "2 near doublets, 1 of them in two parts or under two labels" in result.stdout
    assert "1 broken pictures" in result.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;one and two" in page
    assert "<b>one" not in page
    assert page.count("data:image/jpeg;base64,") >= 6
    assert "http" not in page

    table = tmp_path / "out" / "pictures.csv"
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 28
    by_name = {Path(row["path"]).name: row for row in rows}
    assert by_name["broken.png"]["keep"] == "0"
    assert by_name["equal.png"]["problem"].startswith("equal to training/<b>one/00.png under two labels")
    assert by_name["small.jpg"]["split"] == "val"
    unedited = load_data(str(table))
    assert (len(unedited.train), len(unedited.val)) == (20, 7)
    assert unedited.warnings == ()

    by_name["equal.png"]["keep"] = "no"
    by_name["05.png"]["label"] = "<b>one"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    edited = load_data(str(table))
    assert len(edited.train) == 19
    assert np.bincount(edited.train.targets).tolist() == [13, 6]
    assert np.bincount(unedited.train.targets).tolist() == [12, 8]
    with pytest.raises(HalftoneError, match="may be edited: name another folder"):
        DataConfig(data=str(photos), check=True, report=tmp_path / "out")


def test_pictures_in_memory_have_a_page_but_no_table(tmp_path):
    crops = CropPictures(20, side=64)
    pictures = ArrayPictures(labels=crops.labels, targets=crops.targets, images=np.stack(crops.pixels), title="crops")
    data = Data(train=pictures, val=CropPictures(4, seed=9), description="crops", own_split=True)
    inspection = inspect(data)

    assert not write_inspection(tmp_path, data, inspection, title="crops")
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]
    assert "copy them with <code>--output</code>" in (tmp_path / "index.html").read_text()
    assert all(pair.count > 1 and 0 < pair.share <= 1 for pair in alike_classes(inspection, data.train.labels))


def test_a_report_is_of_a_check():
    with pytest.raises(HalftoneError, match="add --check"):
        DataConfig(data="photos", report=Path("out"))
