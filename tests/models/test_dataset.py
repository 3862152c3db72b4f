"""Test how labelled images are listed: one folder per class."""

from pathlib import Path

import pytest

from models.common.errors import HalftoneError
from models.dataset import held_out_images
from tests.samples import manifest

MODEL = manifest(labels=("cat", "dog", "n03"), label_ids=("n01", "n02", "n03"))


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def listed(folder: Path) -> list[tuple[str, int]]:
    return [(str(path.relative_to(folder)), label) for path, label in held_out_images(folder, MODEL)]


def test_folders_are_named_by_label_or_id(tmp_path: Path) -> None:
    tree(
        tmp_path, "dog/b.JPG", "dog/a.png", "n01/c.webp", "n03/deep/er/d.jpeg", "dog/notes.txt", ".cache/x.jpg", "x.jpg"
    )

    assert listed(tmp_path) == [("dog/a.png", 1), ("dog/b.JPG", 1), ("n01/c.webp", 0), ("n03/deep/er/d.jpeg", 2)]


@pytest.mark.parametrize("held_out", ["val", "validation", "Valid", "dev", "test", "TESTING"])
def test_the_held_out_part_is_used(tmp_path: Path, held_out: str) -> None:
    tree(tmp_path, "train/cat/a.jpg", f"{held_out}/cat/b.jpg")

    assert listed(tmp_path) == [(f"{held_out}/cat/b.jpg", 0)]


def test_a_folder_named_like_a_picture_is_not_a_picture(tmp_path: Path) -> None:
    tree(tmp_path, "cat/a.jpg/inner.png")

    assert listed(tmp_path) == [("cat/a.jpg/inner.png", 0)]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["zebra/a.jpg", "yak/b.jpg"], r"2 folders that match no class of tiny, such as 'yak'.*\(cat, dog, n03\)"),
        (["cat/readme.txt"], "holds no pictures"),
        (["a.jpg"], "holds 1 pictures but no class folders"),
        ([], "holds no pictures"),
    ],
)
def test_a_folder_that_can_not_be_used(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(HalftoneError, match=words):
        held_out_images(tree(tmp_path, *names), MODEL)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(
        HalftoneError, match="nowhere: no such folder; it must contain one folder of pictures per class"
    ):
        held_out_images(tmp_path / "nowhere", MODEL)
