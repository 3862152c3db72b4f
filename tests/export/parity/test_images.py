"""Images of a parity proof."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.parity.gate import MIN_IMAGES
from export.parity.images import CROPS_PER_PHOTO, PHOTOS, proof_images, sample_crops, shows
from export.parity.metrics import UNLABELLED
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from models.dataset import LEAST_PICTURES, TRAINING_PICTURES, content_digest, held_out_images
from models.preprocess.transform import load
from models.spec import InputSpec
from tests.samples import small_bundle

SMALL = InputSpec(size=32)


def test_the_sample_crops_are_many_distinct_and_the_same_every_time() -> None:
    crops = [picture.tobytes() for picture, _ in sample_crops(SMALL)]

    assert len(list(PHOTOS.glob("*.jpg"))) >= 6
    assert len(crops) == len(set(crops)) == 320
    assert crops[:40] == [picture.tobytes() for picture, _ in sample_crops(SMALL)][:40]


def test_every_photograph_has_its_licence() -> None:
    licences = (PHOTOS / "LICENSES.md").read_text()

    assert all(f"`{photo.name}`" in licences for photo in PHOTOS.glob("*.jpg"))


@pytest.fixture
def model(tmp_path: Path) -> Bundle:
    return small_bundle(tmp_path / "model", input=SMALL)


@pytest.mark.parametrize("size", [1, 7, 320, 400])
def test_batches_hold_every_picture_once(tmp_path: Path, size: int) -> None:
    images = proof_images(small_bundle(tmp_path / "model", input=InputSpec(size=8)), None)

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
    for label, photos in {
        "cat": ["cat", "camera", "astronaut", "flower"],
        "dog": ["coffee", "rocket", "temple"],
    }.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for photo in photos:
            shutil.copy(PHOTOS / f"{photo}.jpg", tmp_path / "data" / label)
    for photo in ("galaxies", "coffee"):
        Image.open(PHOTOS / f"{photo}.jpg").resize((64, 48)).save(tmp_path / "data" / "dog" / f"small {photo}.png")
    return tmp_path / "data"


def test_labelled_pictures_keep_their_class(labelled: Path, model: Bundle) -> None:
    images = proof_images(model, labelled)

    whole = [image for image in images.source if image.label != UNLABELLED]

    assert (images.labelled, images.unreadable) == (True, [])
    paths = held_out_images(labelled, model.manifest)
    assert sorted(image.picture for image in whole) == list(range(9))
    for image in whole:
        path, label = paths[image.picture]
        assert image.label == label
        np.testing.assert_array_equal(image.pixels, load(path.read_bytes(), SMALL))


def test_few_pictures_are_made_up_for_by_crops_of_them(labelled: Path, model: Bundle) -> None:
    images = proof_images(model, labelled)

    every = list(images.source)

    assert images.count == len(every) == 9 * 29
    assert np.bincount([image.picture for image in every]).tolist() == [29] * 9
    assert len({image.pixels.tobytes() for image in every}) == len(every)


def test_too_few_pictures_are_refused(labelled: Path, model: Bundle) -> None:
    assert LEAST_PICTURES * (1 + CROPS_PER_PHOTO) >= MIN_IMAGES > (LEAST_PICTURES - 1) * (1 + CROPS_PER_PHOTO)
    trained_on(model, [labelled / "cat" / f"{photo}.jpg" for photo in ("cat", "camera", "astronaut")])

    with pytest.raises(
        HalftoneError,
        match=r"holds 6 pictures that the model was not trained on, and a proof takes at least 7: add more",
    ):
        proof_images(model, labelled)


def test_enough_pictures_need_no_crops(tmp_path: Path, model: Bundle) -> None:
    folder = tmp_path / "data" / "cat"
    folder.mkdir(parents=True)
    for number in range(256):
        shutil.copy(PHOTOS / "cat.jpg", folder / f"{number}.jpg")

    assert proof_images(model, tmp_path / "data").count == 256
    (folder / "0.jpg").unlink()
    assert proof_images(model, tmp_path / "data").count == 510


def test_one_unreadable_picture_is_left_out_and_named(labelled: Path, model: Bundle) -> None:
    (labelled / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    images = proof_images(model, labelled)

    every = list(images.source)

    assert images.unreadable == ["broken.jpg"]
    assert len(every) == 9 * 26


def test_many_unreadable_pictures_are_refused(labelled: Path, model: Bundle) -> None:
    for name in ("b1.jpg", "b2.png"):
        (labelled / "cat" / name).write_bytes(b"junk")
    images = proof_images(model, labelled)

    with pytest.raises(
        HalftoneError, match=r"2 of the pictures can't be read, over 1% of 11: repair or remove b1\.jpg"
    ):
        list(images.batches(10))


def trained_on(model: Bundle, files: list[Path]) -> None:
    hashes = b"".join(sorted(content_digest(file.read_bytes()) for file in files))
    model.write(TRAINING_PICTURES, hashes, made_by="a test", made_from=[WEIGHTS])


def test_pictures_that_the_model_was_trained_on_are_left_out_and_counted(labelled: Path, model: Bundle) -> None:
    (labelled / "cat" / "cat.jpg").rename(labelled / "cat" / "renamed.jpg")
    trained_on(model, [labelled / "cat" / "renamed.jpg", PHOTOS / "rocket.jpg"])
    images = proof_images(model, labelled)

    assert images.count == len(list(images.source)) == 7 * 37
    assert images.description == "labelled pictures of the folder data without 2 that the model was trained on"
    assert shows(labelled, model, images.description, 7 * 37)
    assert not shows(labelled, model, "labelled pictures of the folder data", 7 * 37)


def test_a_folder_of_training_pictures_only_is_refused(labelled: Path, model: Bundle) -> None:
    trained_on(model, [path for path in sorted(labelled.rglob("*")) if path.is_file()])

    with pytest.raises(
        HalftoneError, match=r"model was trained on every one of the 9 pictures of --data .*: name others"
    ):
        proof_images(model, labelled)
