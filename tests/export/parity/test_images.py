"""Images of a parity proof."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.parity.images import PHOTOS, proof_images, sample_crops
from export.parity.metrics import UNLABELLED
from models.common.errors import HalftoneError
from models.dataset import held_out_images
from models.preprocess.transform import load
from models.spec import InputSpec
from tests.samples import manifest

SMALL = InputSpec(size=32)


def test_the_sample_crops_are_many_distinct_and_the_same_every_time() -> None:
    crops = [picture.tobytes() for picture, _ in sample_crops(SMALL)]

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
    assert sum(len(batch.pixels) for batch in batches) == 320
    assert {len(batch.pixels) for batch in batches[:-1]} <= {size}
    assert all((batch.labels == UNLABELLED).all() and batch.pixels.shape[1:] == (8, 8, 3) for batch in batches)
    photographs = np.concatenate([batch.pictures for batch in batches])
    assert np.bincount(photographs).tolist() == [40] * 8
    assert (photographs[1:] != photographs[:-1]).all()


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

    whole = [image for image in images.source if image.label != UNLABELLED]

    assert (images.labelled, images.unreadable) == (True, [])
    paths = held_out_images(labelled, model)
    assert sorted(image.picture for image in whole) == list(range(5))
    for image in whole:
        path, label = paths[image.picture]
        assert image.label == label
        np.testing.assert_array_equal(image.pixels, load(path.read_bytes(), SMALL))


def test_few_pictures_are_made_up_for_by_crops_of_them(labelled: Path) -> None:
    images = proof_images(manifest(input=SMALL), labelled)

    every = list(images.source)

    assert images.count == len(every) == 5 * 41
    assert np.bincount([image.picture for image in every]).tolist() == [41] * 5
    assert len({image.pixels.tobytes() for image in every}) == len(every)


def test_enough_pictures_need_no_crops(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for number in range(256):
        shutil.copy(PHOTOS / "cat.jpg", tmp_path / "cat" / f"{number}.jpg")

    assert proof_images(manifest(input=SMALL), tmp_path).count == 256
    (tmp_path / "cat" / "0.jpg").unlink()
    assert proof_images(manifest(input=SMALL), tmp_path).count == 510


def test_one_unreadable_picture_is_left_out_and_named(labelled: Path) -> None:
    (labelled / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    images = proof_images(manifest(input=SMALL), labelled)

    every = list(images.source)

    assert images.unreadable == ["broken.jpg"]
    assert len(every) == 5 * 41


def test_many_unreadable_pictures_are_refused(labelled: Path) -> None:
    for name in ("b1.jpg", "b2.png"):
        (labelled / "cat" / name).write_bytes(b"junk")
    images = proof_images(manifest(input=SMALL), labelled)

    with pytest.raises(HalftoneError, match=r"2 of the pictures can't be read, over 1% of 7: repair or remove b1\.jpg"):
        list(images.batches(10))
