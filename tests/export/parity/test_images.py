"""Images of a parity proof."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.parity.images import PHOTOS, proof_images, sample_crops
from models.common.errors import HalftoneError
from models.dataset import held_out_images
from models.preprocess.transform import load
from models.spec import InputSpec
from tests.samples import manifest

SMALL = InputSpec(size=32)


def test_the_sample_crops_are_many_distinct_and_the_same_every_time() -> None:
    crops = [picture.tobytes() for picture, label in sample_crops(SMALL) if label is None]

    assert len(list(PHOTOS.glob("*.jpg"))) >= 6
    assert len(crops) == len(set(crops)) == 320
    assert crops[:40] == [picture.tobytes() for picture, _ in sample_crops(SMALL)][:40]


def test_every_photograph_has_its_licence() -> None:
    licences = (PHOTOS / "LICENSES.md").read_text()

    assert all(f"`{photo.name}`" in licences for photo in PHOTOS.glob("*.jpg"))


@pytest.mark.parametrize("size", [1, 7, 320, 400])
def test_batches_hold_every_picture_once(size: int) -> None:
    images = proof_images(manifest(input=InputSpec(size=8)), None)

    batches = list(images.batches(size))

    assert (images.labelled, images.count) == (False, 320)
    assert sum(len(pixels) for pixels, _ in batches) == 320
    assert {len(pixels) for pixels, _ in batches[:-1]} <= {size}
    assert all(classes is None and pixels.shape[1:] == (8, 8, 3) for pixels, classes in batches)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for label, photos in {"cat": ["cat", "camera", "astronaut"], "dog": ["coffee", "rocket"]}.items():
        (tmp_path / label).mkdir()
        for photo in photos:
            shutil.copy(PHOTOS / f"{photo}.jpg", tmp_path / label)
    return tmp_path


def test_labelled_pictures_keep_their_class(labelled: Path) -> None:
    model = manifest(input=SMALL)
    images = proof_images(model, labelled)

    batches = list(images.batches(2))

    assert (images.labelled, images.count, images.unreadable) == (True, 5, [])
    assert np.concatenate([classes for _, classes in batches if classes is not None]).tolist() == [0, 0, 0, 1, 1]
    pictures = np.concatenate([pixels for pixels, _ in batches])
    for (path, _), pixels in zip(held_out_images(labelled, model), pictures, strict=True):
        np.testing.assert_array_equal(pixels, load(path.read_bytes(), SMALL))


def test_one_unreadable_picture_is_left_out_and_named(labelled: Path) -> None:
    (labelled / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    images = proof_images(manifest(input=SMALL), labelled)

    batches = list(images.batches(10))

    assert images.unreadable == ["broken.jpg"]
    assert [len(pixels) for pixels, _ in batches] == [5]


def test_many_unreadable_pictures_are_refused(labelled: Path) -> None:
    for name in ("b1.jpg", "b2.png"):
        (labelled / "cat" / name).write_bytes(b"junk")
    images = proof_images(manifest(input=SMALL), labelled)

    with pytest.raises(HalftoneError, match=r"2 of the pictures can't be read, over 1% of 7: repair or remove b1\.jpg"):
        list(images.batches(10))
