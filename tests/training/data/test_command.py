import subprocess
from pathlib import Path

import numpy as np
import pytest

import training
from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError
from models.dataset import held_out_images
from models.spec import InputSpec
from tests.commands import run
from tests.training.samples import class_folders, png
from training.data.__main__ import DataConfig, Findings, check, write_sample
from training.data.check.duplicates import Duplicates
from training.data.load import load_data


def command(*arguments: str) -> subprocess.CompletedProcess:
    return run("training.data", *arguments)


def test_it_describes_and_checks(tmp_path):
    class_folders(tmp_path, {"cat": 10, "dog": 2})
    result = command("--data", str(tmp_path), "--check")
    assert result.returncode == 0, result.stderr
    assert "cat: 8 + 2" in result.stdout
    assert "warning: the classes are uneven" in result.stdout
    assert "all 12 pictures can be read, and none is in two parts or under two labels" in result.stdout


def test_broken_and_shared_pictures_are_named_with_exit_code_1(tmp_path):
    class_folders(tmp_path / "train", {"cat": 3, "dog": 3})
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1}, first_seed=20)
    (tmp_path / "val" / "cat" / "copy.png").write_bytes(png(0))
    (tmp_path / "train" / "dog" / "001.png").write_bytes(b"")
    findings = check(load_data(str(tmp_path)))
    assert findings.duplicates.shared == [
        "training picture cat/000.png ('cat') = validation picture cat/copy.png ('cat')"
    ]
    assert findings.broken[0].startswith("dog/001.png: the picture is empty")
    result = command("--data", str(tmp_path), "--check")
    assert result.returncode == 1
    assert "cat/copy.png" in result.stdout


def test_equal_pictures_are_named_with_both_labels_without_a_check(tmp_path):
    class_folders(tmp_path / "train", {"cat": 3, "dog": 3})
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1}, first_seed=20)
    (tmp_path / "train" / "dog" / "twin.png").write_bytes(png(1))
    (tmp_path / "train" / "cat" / "again.png").write_bytes(png(2))
    (tmp_path / "val" / "dog" / "both.png").write_bytes(png(3))
    twin = "training picture cat/001.png ('cat') = training picture dog/twin.png ('dog')"
    result = command("--data", str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert f"1 times a picture has two labels, one of which is wrong (remove the wrong one): {twin}" in result.stdout
    assert "1 times a picture is in two parts, which makes the accuracy too high" in result.stdout
    assert "1 times a picture is repeated within a part" in result.stdout
    checked = command("--data", str(tmp_path), "--check")
    assert checked.returncode == 1
    assert f"1 pictures under two labels; correct or remove one of each pair:\n  {twin}" in checked.stdout


def test_a_sample_is_a_smaller_data_set_of_the_same_pixels(tmp_path):
    class_folders(tmp_path / "all", {"cat": 30, "dog": 20})
    data = load_data(str(tmp_path / "all"))
    assert write_sample(data, tmp_path / "some", per_class=5, val_per_class=2, seed=0) == 14
    sample = load_data(str(tmp_path / "some"))
    assert np.bincount(sample.train.targets).tolist() == [5, 5]
    assert np.bincount(sample.val.targets).tolist() == [2, 2]
    originals = {data.train.read(index).tobytes() for index in range(len(data.train))}
    assert all(sample.train.read(index).tobytes() in originals for index in range(10))


def test_a_broken_picture_of_a_sample_is_named(tmp_path):
    class_folders(tmp_path / "all", {"cat": 2, "dog": 2})
    for file in (tmp_path / "all").rglob("*.png"):
        file.write_bytes(b"no picture")
    data = load_data(str(tmp_path / "all"))
    with pytest.raises(HalftoneError, match=r"cat/00\d\.png: these 10 bytes are not a picture"):
        write_sample(data, tmp_path / "some", per_class=5, val_per_class=2, seed=0)


def test_the_output_must_be_new(tmp_path):
    with pytest.raises(HalftoneError, match="exists already"):
        DataConfig(data="photos", output=tmp_path)


def test_the_included_sample_is_intact_and_export_finds_its_held_out_pictures():
    folder = Path(training.__file__).parent / "sample"
    data = load_data(str(folder))
    assert np.bincount(data.train.targets).tolist() == [50] * 10
    assert np.bincount(data.val.targets).tolist() == [20] * 10
    assert check(data) == Findings(broken=[], duplicates=Duplicates(mislabelled=[], shared=[], repeated=[]))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000
    assert "MIT licence" in (folder / "LICENSE.md").read_text()
    manifest = Manifest(
        name="demo",
        architecture="x",
        input=InputSpec(size=8),
        labels=data.train.labels,
        trained=True,
        source="",
        license="",
    )
    assert len(held_out_images(folder, manifest)) == 200
