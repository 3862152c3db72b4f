import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.common.errors import HalftoneError
from models.spec import InputSpec
from tests.training.samples import class_folders
from training.config.augment import AugmentConfig
from training.data.augment import EvaluationView, build_augment
from training.data.dataset import PictureSet
from training.data.load import load_data

SPEC = InputSpec(size=16)
VIEW = build_augment(AugmentConfig(), SPEC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    class_folders(tmp_path / "train", {"cat": 6, "dog": 6})
    class_folders(tmp_path / "val", {"cat": 1, "dog": 1})
    return tmp_path


def picture_set(folder: Path, view=VIEW, **options) -> PictureSet:
    return PictureSet(load_data(str(folder)).train, view, seed=options.pop("seed", 1), **options)


def everything(pictures: PictureSet, workers: int = 0, order: list[int] | None = None) -> dict[int, torch.Tensor]:
    loader = DataLoader(pictures, batch_size=3, sampler=order or range(len(pictures)), num_workers=workers)
    seen = {}
    for pixels, targets, indices in loader:
        assert torch.equal(targets, torch.from_numpy(pictures.pictures.targets)[indices])
        seen |= dict(zip(indices.tolist(), pixels, strict=True))
    return seen


def same(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_an_item_is_pixels_class_and_index(folder):
    pixels, target, index = picture_set(folder)[7]
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (16, 16, 3))
    assert (target, index) == (1, 7)


@pytest.mark.usefixtures("every_core")
def test_what_is_seen_depends_on_seed_epoch_and_index_alone(folder):
    pictures = picture_set(folder)
    first = everything(pictures)
    assert same(first, everything(pictures, workers=2))
    assert same(first, everything(pictures, order=list(reversed(range(12)))))
    assert same(first, everything(picture_set(folder)))
    assert not same(first, everything(picture_set(folder, seed=2)))
    pictures.set_epoch(1)
    assert not same(first, everything(pictures))
    pictures.set_epoch(0)
    assert same(first, everything(pictures))


def test_a_repeated_picture_of_an_epoch_gets_another_augmentation(folder):
    pictures = picture_set(folder)
    items = [pictures[7 + 12 * occurrence] for occurrence in range(3)]
    assert [item[1:] for item in items] == [(1, 7)] * 3
    assert len({item[0].numpy().tobytes() for item in items}) == 3
    assert torch.equal(pictures[7 + 12][0], items[1][0])


def test_running_loader_processes_see_the_new_epoch(folder):
    pictures = picture_set(folder)
    loader = DataLoader(pictures, batch_size=12, num_workers=1, persistent_workers=True)
    views = []
    for epoch in (0, 1, 0):
        pictures.set_epoch(epoch)
        views.append(next(iter(loader))[0])
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])


def test_it_can_be_sent_to_another_process(folder):
    pictures = pickle.loads(pickle.dumps(picture_set(folder, EvaluationView(SPEC)).pictures))
    assert np.array_equal(pictures.read(0), load_data(str(folder)).train.read(0))


@pytest.mark.usefixtures("every_core")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_replaced_by_one_of_its_class_named_and_counted(folder, workers):
    (folder / "train" / "cat" / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    pictures = picture_set(folder, EvaluationView(SPEC))
    seen = everything(pictures, workers=workers)
    assert len(seen) == 12
    assert torch.equal(seen[2], seen[3])
    assert pictures.broken().nonzero().flatten().tolist() == [2]
    assert pictures.names(pictures.broken()) == ["cat/002.png"]


def test_the_last_of_a_class_is_replaced_by_the_first(folder):
    (folder / "train" / "dog" / "005.png").write_bytes(b"")
    seen = everything(picture_set(folder, EvaluationView(SPEC)))
    assert torch.equal(seen[11], seen[6])


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_pictures_stop_the_run_with_the_list(folder, workers):
    for number in range(3):
        (folder / "train" / "cat" / f"00{number}.png").write_bytes(b"no picture")
    pictures = picture_set(folder, max_corrupt_share=0.17)
    with pytest.raises(HalftoneError, match=r"3 of 12 pictures.*the 2 allowed.*cat/000.png, cat/001.png, cat/002.png"):
        everything(pictures, workers=workers)


def test_a_share_of_zero_allows_no_broken_picture(folder):
    (folder / "train" / "cat" / "002.png").write_bytes(b"")
    with pytest.raises(HalftoneError, match="1 of 12"):
        everything(picture_set(folder, max_corrupt_share=0))


def test_a_class_without_a_readable_picture_stops_the_run(folder):
    for file in (folder / "train" / "cat").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(HalftoneError, match="no picture of the class 'cat' can be read"):
        everything(picture_set(folder, max_corrupt_share=1.0))


def test_evaluation_sees_what_preprocessing_makes(folder):
    from models.preprocess.transform import fit

    pictures = picture_set(folder, EvaluationView(SPEC))
    assert np.array_equal(pictures[4][0].numpy(), fit(pictures.pictures.read(4), SPEC))
