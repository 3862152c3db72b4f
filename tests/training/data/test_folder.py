import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.common.errors import HalftoneError
from tests.commands import run
from tests.training.samples import class_folders, picture, png
from training.data.load import load_data
from training.data.pictures import Data
from training.data.sources.folder import load_folder
from training.data.split import Shares


def load(folder: Path) -> Data:
    return load_folder(folder, Shares(val=0.25))


def names(pictures) -> set[str]:
    return {pictures.name(index) for index in range(len(pictures))}


def test_train_and_val_folders_are_the_two_parts(tmp_path):
    class_folders(tmp_path / "train", {"cat": 3, "dog": 2})
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1})
    data = load(tmp_path)
    assert data.train.labels == data.val.labels == ("cat", "dog")
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert data.val.targets.tolist() == [0, 1]
    assert data.own_split
    assert data.warnings == ()
    assert np.array_equal(data.train.read(0), picture(0))


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_other_names_for_held_out_pictures(tmp_path, held_out):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / held_out, {"cat": 1, "dog": 1})
    assert len(load(tmp_path).val) == 2


def test_val_has_precedence_over_test(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1})
    class_folders(tmp_path / "test", {"cat": 5, "dog": 5})
    data = load(tmp_path)
    assert (len(data.train), len(data.val)) == (4, 2)


@pytest.mark.parametrize("inner", ["", "train"])
def test_undivided_folders_are_split_by_class(tmp_path, inner):
    class_folders(tmp_path / inner if inner else tmp_path, {"cat": 8, "dog": 4})
    data = load(tmp_path)
    assert np.bincount(data.val.targets).tolist() == [2, 1]
    assert np.bincount(data.train.targets).tolist() == [6, 3]
    assert not names(data.train) & names(data.val)
    assert not data.own_split


def test_pictures_lie_at_any_depth_and_hidden_or_other_files_are_left_out(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "cat" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "cat" / "deep" / "er" / "x.PNG").write_bytes(png(9))
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("no class")
    data = load(tmp_path)
    assert names(data.train) | names(data.val) == {
        "cat/000.png", "cat/001.png", "cat/deep/er/x.PNG", "dog/000.png", "dog/001.png"
    }  # fmt: skip


def test_links_are_followed(tmp_path):
    class_folders(tmp_path / "elsewhere", {"dog": 4})
    class_folders(tmp_path / "data", {"cat": 4})
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    assert np.bincount(load(tmp_path / "data").train.targets).tolist() == [3, 3]


def test_odd_pictures_are_read_upright_in_rgb(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 1})
    odd = tmp_path / "dog"
    Image.fromarray(picture(1)).convert("L").save(odd / "grey.png")
    Image.fromarray(picture(1)).convert("P").save(odd / "palette.png")
    Image.fromarray(picture(1)).convert("CMYK").save(odd / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1)).save(odd / "turned.jpg", exif=exif)
    data = load(tmp_path)
    shapes = {
        pictures.name(index): pictures.read(index).shape
        for pictures in (data.train, data.val)
        for index in range(len(pictures))
    }
    assert shapes["dog/grey.png"] == shapes["dog/palette.png"] == shapes["dog/cmyk.jpg"] == (10, 12, 3)
    assert shapes["dog/turned.jpg"] == (12, 10, 3)


def test_a_class_without_held_out_pictures_is_mentioned(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "val", {"cat": 1})
    data = load(tmp_path)
    assert data.val.targets.tolist() == [0]
    assert "dog" in data.warnings[0]


def test_a_class_of_one_picture_is_trained_on_and_mentioned(tmp_path):
    class_folders(tmp_path, {"cat": 4, "dog": 1})
    data = load(tmp_path)
    assert np.bincount(data.train.targets).tolist() == [3, 1]
    assert "dog" in data.warnings[0]


def refused(folder: Path, message: str) -> None:
    with pytest.raises(HalftoneError, match=message):
        load(folder)


def test_no_such_folder(tmp_path):
    refused(tmp_path / "nowhere", "does not exist: name a folder")


def test_a_file_that_is_not_a_table(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    refused(tmp_path / "photos.zip", "is a file: name a folder")


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "one folder of JPEG, PNG or WebP files per class")


def test_pictures_without_class_folders(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    refused(tmp_path, "has 1 pictures but no class folders")


def test_one_class(tmp_path):
    class_folders(tmp_path, {"cat": 3})
    refused(tmp_path, "only one class, 'cat'.*add a folder")


def test_one_wrapping_folder(tmp_path):
    class_folders(tmp_path / "photos", {"cat": 3, "dog": 3})
    refused(tmp_path, "if its folders are the classes, name it with --data")


def test_an_empty_class(tmp_path):
    class_folders(tmp_path, {"cat": 3, "dog": 3, "emu": 0})
    refused(tmp_path, "emu has no pictures: add")


def test_a_class_of_unread_formats(tmp_path):
    class_folders(tmp_path, {"cat": 3, "emu": 0})
    (tmp_path / "emu" / "a.bmp").write_bytes(b"BM")
    refused(tmp_path, r"emu has 1 BMP files, which are not read: convert")


@pytest.mark.parametrize(("one", "other"), [("cat", "Cat"), ("caf\u00e9", "cafe\u0301"), ("cat", "cat ")])
def test_names_that_differ_in_spelling_only(tmp_path, one, other):
    class_folders(tmp_path, {one: 2, other: 2})
    refused(tmp_path, "differ in spelling only")


def test_a_class_folder_name_that_is_not_text(tmp_path):
    class_folders(tmp_path, {"cat": 2})
    broken = os.fsencode(tmp_path) + b"/d\xffg"
    os.mkdir(broken)
    refused(tmp_path, "not UTF-8 text: rename")


def test_a_picture_name_that_is_not_text_is_allowed(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    with open(os.fsencode(tmp_path) + b"/dog/\xff.png", "wb") as file:
        file.write(png(5))
    data = load(tmp_path)
    found = names(data.train) | names(data.val)
    assert r"dog/\xff.png" in found
    assert all(pictures.read(index).shape for pictures in (data.train, data.val) for index in range(len(pictures)))


def test_a_held_out_class_without_training_pictures(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "val", {"cat": 1, "Dog": 1})
    refused(tmp_path, "has the class 'Dog'.*is it 'dog' in another spelling")


def test_val_without_train(tmp_path):
    class_folders(tmp_path / "val", {"cat": 2, "dog": 2})
    refused(tmp_path, "has val/ but no train/")


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "valid"), ("Train", "Val"), ("training", "Dev"), ("TRAINING", "VALIDATION"), ("train", "validation")],
)
def test_parts_have_their_usual_names_in_any_case(tmp_path, train, val):
    class_folders(tmp_path / train, {"cat": 2, "dog": 2})
    class_folders(tmp_path / val, {"cat": 1, "dog": 1})
    class_folders(tmp_path / "Testing", {"cat": 3, "dog": 3})
    data = load(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (4, 2, 6)
    assert data.description.endswith(f": {train}/ and {val}/")
    assert data.warnings == (
        "Testing/ chooses nothing: it is read once, after the training, for the accuracy that is reported",
    )


def test_a_test_part_alone_chooses_the_epoch_and_that_is_said(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "Test", {"cat": 1, "dog": 1})
    data = load(tmp_path)
    assert (len(data.val), data.test) == (2, None)
    assert data.warnings[0].startswith("there is no validation part, so Test/ chooses the epoch and the temperature")
    assert "move some pictures of train/ to val/" in data.warnings[0]


@pytest.mark.parametrize(("one", "other"), [("val", "valid"), ("train", "Training"), ("test", "testing")])
def test_two_names_of_the_same_part_are_refused(tmp_path, one, other):
    for name in {"train", "val", one, other}:
        class_folders(tmp_path / name, {"cat": 2, "dog": 2})
    refused(tmp_path, "and both mean the (train|val|test) part: merge or rename one of them")


def test_a_test_part_without_classes_or_with_others_is_left_alone(tmp_path):
    for name in ("train", "val"):
        class_folders(tmp_path / name, {"cat": 2, "dog": 2})
    class_folders(tmp_path / "test", {"emu": 2})
    assert "test/ is left alone, and can't be evaluated on: training has no class 'emu'" in load(tmp_path).warnings
    (tmp_path / "test").rename(tmp_path / "val" / "cat" / "more")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.png").write_bytes(png())
    assert "test/ has no class folders, so it is ignored" in load(tmp_path).warnings
    (tmp_path / "unlabelled").mkdir()
    assert "unlabelled/ is ignored: it is none of the parts train, val and test" in load(tmp_path).warnings


def test_a_validation_part_without_classes_is_refused(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    (tmp_path / "valid").mkdir()
    refused(tmp_path, "valid has no class folders: put its pictures into one folder per class")


def test_a_folder_that_may_be_a_part_is_refused(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "holdout", {"cat": 2, "dog": 2})
    refused(tmp_path, "train/ and holdout/.*rename it to val")


def test_pictures_are_recognised_by_content_and_what_is_left_out_is_named(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    for name in ("cat/x.jfif", "cat/no_ending", "dog/wrong.gif"):
        (tmp_path / name).write_bytes(png(len(name)))
    for name, start in (("cat/a.gif", b"GIF89a"), ("cat/b.bmp", b"BM"), ("dog/c.avif", b"\0\0\0\x20ftypavif")):
        (tmp_path / name).write_bytes(start)
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    data = load(tmp_path)
    assert {"cat/x.jfif", "cat/no_ending", "dog/wrong.gif"} < names(data.train) | names(data.val)
    assert data.warnings == (
        "4 files are left out because they are not JPEG, PNG or WebP: cat/a.gif (GIF), cat/b.bmp (BMP), "
        "dog/c.avif (AVIF), dog/notes.txt (no picture)",
    )


def test_a_class_may_have_the_name_of_a_part(tmp_path):
    class_folders(tmp_path, {"Train": 4, "bus": 4})
    assert load(tmp_path).train.labels == ("Train", "bus")


def test_a_loop_of_links(tmp_path):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "dog" / "again").symlink_to(tmp_path / "dog")
    refused(tmp_path, "again is a link to one of its parent folders")


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    class_folders(tmp_path, {"cat": 2, "dog": 2})
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    refused(tmp_path, r"dog can't be read \(Permission denied\).*chmod")


def test_a_file_that_vanishes_is_a_broken_picture(tmp_path):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1})
    data = load(tmp_path)
    (tmp_path / "train" / "cat" / "000.png").unlink()
    with pytest.raises(HalftoneError, match=re.escape("can't be read (No such file")):
        data.train.read(0)


def test_the_fingerprint_changes_with_names_and_classes(tmp_path):
    class_folders(tmp_path, {"cat": 4, "dog": 4})
    before = load(tmp_path)
    assert before.fingerprint() == load(tmp_path).fingerprint()
    assert before.fingerprint() != load_folder(tmp_path, Shares(val=0.25, seed=1)).fingerprint()
    (tmp_path / "cat" / "000.png").rename(tmp_path / "dog" / "zzz.png")
    assert before.fingerprint() != load(tmp_path).fingerprint()


def test_a_limit_keeps_every_class(tmp_path):
    class_folders(tmp_path, {"cat": 20, "dog": 10, "emu": 2})
    data = load_data(str(tmp_path), limit=8)
    assert (len(data.train), len(data.val)) == (8, 7)
    assert set(data.train.targets.tolist()) == {0, 1, 2}
    with pytest.raises(HalftoneError, match="--limit 2 is less than one picture for each of the 3 classes"):
        load_data(str(tmp_path), limit=2)


@pytest.mark.parametrize("share", [1, 1.0, 0.0, -0.1, 2.0, float("nan")])
def test_a_share_outside_its_range(tmp_path, share):
    with pytest.raises(HalftoneError) as caught:
        load_data(str(tmp_path), val_share=share)
    assert str(caught.value) == f"--val-share must lie between 0 and 1, not {share}"


@pytest.mark.parametrize("name", ["do\ng", "dog\x1b[31m", "\x9bdog", "do\u2028g", "dog\x7f"])
def test_a_class_folder_with_a_control_character_is_refused(tmp_path, name):
    class_folders(tmp_path / "photos", {"cat": 2, name: 2})
    class_folders(tmp_path / "parts" / "train", {"cat": 2, "dog": 2})
    class_folders(tmp_path / "parts" / "val", {"cat": 2, name: 2})
    for data in ("photos", "parts"):
        with pytest.raises(HalftoneError) as caught:
            load(tmp_path / data)
        assert repr(name) in str(caught.value)
        assert str(caught.value).isprintable()


def test_commands_print_no_control_characters(tmp_path):
    data = tmp_path / "my\nphotos\x1b[2J"
    class_folders(data, {"cat": 2, "dog": 2})
    (data / "cat" / "bro\nken\x1b.png").write_bytes(b"no picture")
    checked = run("training.data", "--data", data, "--check")
    assert checked.returncode == 1, checked.stderr
    assert r"cat/bro\nken\x1b.png" in checked.stdout
    assert r"folder my\nphotos\x1b[2J: " in checked.stdout
    assert all(line.isprintable() for line in checked.stdout.splitlines())

    (data / "ra\nt").mkdir()
    refused = run("training", "--data", data, "--model", "resnet18", "--output", tmp_path / "out")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert refused.stderr.strip().isprintable()
    assert "has a control character or a line end in its name: rename it" in refused.stderr
    assert not (tmp_path / "out").exists()
