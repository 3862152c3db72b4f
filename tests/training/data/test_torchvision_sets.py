import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from models.common.errors import HalftoneError
from models.preprocess.decode import decode
from tests.samples import encoded, noise, oriented
from training.data.load import load_data
from training.data.sources import idx, torchvision_sets


def idx_bytes(array: np.ndarray) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return b"\0\0\x08" + bytes([array.ndim]) + shape + array.astype(np.uint8).tobytes()


def mnist_folder(folder: Path, *, packed: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 30), ("t10k", 20)):
        arrays[f"{part}-images-idx3"] = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in arrays.items():
        data = idx_bytes(array)
        path = folder / f"{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)
    return arrays


@pytest.mark.parametrize(("place", "packed"), [("", True), ("", False), ("FashionMNIST/raw", False)])
def test_fashion_mnist_is_read_from_its_files(tmp_path, place, packed):
    arrays = mnist_folder(tmp_path / place, packed=packed)
    data = load_data(f"torchvision:FashionMNIST@{tmp_path}")
    assert data.train.labels[0] == "T-shirt or top"
    assert data.train.labels[9] == "Ankle boot"
    assert (len(data.train), len(data.val)) == (30, 20)
    assert data.own_split
    picture = data.val.read(3)
    assert picture.shape == (28, 28, 3)
    assert np.array_equal(picture[:, :, 1], arrays["t10k-images-idx3"][3])
    assert data.val.targets[3] == 3
    assert data.val.name(3) == "FashionMNIST t10k 3"


def test_debian_s_package_is_found_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "DEBIAN", tmp_path)
    mnist_folder(tmp_path / "fashion-mnist", packed=True)
    assert len(load_data("torchvision:FashionMNIST").train) == 30


def test_the_fingerprint_covers_the_pixels(tmp_path):
    mnist_folder(tmp_path, packed=False)
    before = load_data(f"torchvision:MNIST@{tmp_path}").fingerprint()
    file = tmp_path / "train-images-idx3-ubyte"
    data = bytearray(file.read_bytes())
    data[500] ^= 1
    file.write_bytes(data)
    assert load_data(f"torchvision:MNIST@{tmp_path}").fingerprint() != before


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-5], "truncated"),
        ("train-images-idx3-ubyte", lambda data: b"\0\0\x0d" + data[3:], "not an IDX file"),
        ("train-images-idx3-ubyte", lambda data: b"", "not an IDX file"),
        ("train-labels-idx1-ubyte", lambda data: idx_bytes(np.zeros(29)), "do not belong together"),
        ("train-labels-idx1-ubyte", lambda data: idx_bytes(np.full(30, 77)), "do not belong together"),
    ],
)
def test_damaged_files(tmp_path, name, damage, message):
    mnist_folder(tmp_path, packed=False)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(HalftoneError, match=message):
        load_data(f"torchvision:MNIST@{tmp_path}")


def test_a_damaged_archive(tmp_path):
    mnist_folder(tmp_path, packed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(HalftoneError, match="is damaged"):
        load_data(f"torchvision:MNIST@{tmp_path}")


def test_a_file_of_the_four_is_missing(tmp_path):
    mnist_folder(tmp_path, packed=False)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(HalftoneError, match=r"has no train-images-idx3-ubyte\.gz: all four"):
        load_data(f"torchvision:MNIST@{tmp_path}")


class Stub:
    """Minimal data set with the constructor of torchvision's."""

    def __init__(self, root, *, download, train=True, **_):
        if download:
            raise OSError("no route to host")
        if not (Path(root) / "here").exists():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.classes = ["air/plane", "cat"]
        self.targets = [0, 1] * (4 if train else 2)
        self.data = np.random.default_rng(0).integers(0, 256, (len(self.targets), 32, 32, 3), dtype=np.uint8)


def test_sets_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stub)
    (tmp_path / "here").touch()
    data = load_data(f"torchvision:CIFAR10@{tmp_path}")
    assert data.train.labels == ("air or plane", "cat")
    assert (len(data.train), len(data.val)) == (8, 4)
    assert data.val.read(3).shape == (32, 32, 3)


class FileStub(Stub):
    """Like `Stub`, with pictures in files."""

    def __init__(self, root, *, download, **keywords):
        super().__init__(root, download=download, **keywords)
        self._labels = self.targets
        del self.data, self.targets

    def __getitem__(self, index):
        if index == 2:
            raise OSError("image file is truncated")
        return Image.new("L", (7, 5), index), self._labels[index]


def test_sets_in_files_without_a_test_part(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "EuroSAT", FileStub)
    (tmp_path / "here").touch()
    data = load_data(f"torchvision:EuroSAT@{tmp_path}", val_share=0.25)
    assert (len(data.train), len(data.val)) == (6, 2)
    assert not data.own_split
    shapes = []
    for part in (data.train, data.val):
        for index in range(len(part)):
            if part.name(index) != "EuroSAT 2":
                shapes.append(part.read(index).shape)
                continue
            with pytest.raises(HalftoneError, match="EuroSAT 2 is damaged"):
                part.read(index)
    assert shapes == [(5, 7, 3)] * 7


class Photos:
    """Imagenette with a rotated file, a transparent file, and a file in a format that serving refuses."""

    def __init__(self, root, *, split, download):
        del split, download
        self.classes = [("tench", "Tinca tinca"), ("golf ball",)]
        self._samples = [(str(path), number % 2) for number, path in enumerate(sorted(Path(root).iterdir()))]

    def __getitem__(self, index):
        path, label = self._samples[index]
        with Image.open(path) as image:
            return image.convert("RGB"), label


@pytest.fixture
def imagenette(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "Imagenette", Photos)
    pixels = noise(10, 12)
    (tmp_path / "0.jpeg").write_bytes(oriented(Image.fromarray(pixels), "JPEG", 6))
    clear = Image.fromarray(np.dstack([pixels, np.zeros((10, 12), dtype=np.uint8)]))
    (tmp_path / "1.jpeg").write_bytes(encoded(clear, "PNG"))
    (tmp_path / "2.jpeg").write_bytes(encoded(Image.fromarray(pixels), "PPM"))
    (tmp_path / "3.jpeg").write_bytes(b"GIF89a, but no more")
    return load_data(f"torchvision:Imagenette@{tmp_path}").train


def test_files_are_read_as_serving_reads_them(imagenette, tmp_path):
    assert imagenette.labels == ("tench", "golf ball")
    assert np.array_equal(imagenette.read(0), decode((tmp_path / "0.jpeg").read_bytes()))
    assert imagenette.read(0).shape == (12, 10, 3)
    assert (imagenette.read(1) == 255).all()
    assert np.array_equal(imagenette.read(2), noise(10, 12))
    with pytest.raises(HalftoneError, match="Imagenette 3 is damaged"):
        imagenette.read(3)
    assert len({imagenette.digest(index) for index in range(4)}) == 4


def test_pictures_that_torchvision_opens_follow_the_same_rules(tmp_path, monkeypatch):
    class Turned(FileStub):
        def __getitem__(self, index):
            file = io.BytesIO(oriented(Image.fromarray(noise(10, 12)), "PNG", 6))
            return Image.open(file), self._labels[index]

    monkeypatch.setattr(torchvision.datasets, "EuroSAT", Turned)
    (tmp_path / "here").touch()
    pictures = load_data(f"torchvision:EuroSAT@{tmp_path}").train
    assert np.array_equal(pictures.read(0), np.rot90(noise(10, 12), -1))
    assert pictures.digest(0) == pictures.digest(1)


def test_a_set_that_is_missing_and_can_not_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stub)
    with pytest.raises(HalftoneError, match=r"CIFAR10 is not in .* and can't be downloaded .*no route.*CIFAR10@FOLDER"):
        load_data(f"torchvision:CIFAR10@{tmp_path}")


def test_the_default_place_follows_the_user_s_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stub)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "halftone").mkdir()
    (tmp_path / "halftone" / "here").touch()
    assert len(load_data("torchvision:CIFAR10").train) == 8


def test_an_unknown_set():
    with pytest.raises(HalftoneError, match="did you mean FashionMNIST"):
        load_data("torchvision:FashionMnist")


def test_caltech101_is_read_from_its_folder(tmp_path):
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    for number, name in enumerate(("BACKGROUND_Google", "accordion", "airplanes")):
        (folder / name).mkdir(parents=True)
        for image in range(1, 6):
            Image.new("RGB", (20, 20), (50 * number, image, 0)).save(folder / name / f"image_{image:04d}.jpg")

    data = load_data(f"torchvision:Caltech101@{tmp_path}")

    assert data.train.labels == ("accordion", "airplanes")
    assert (len(data.train), len(data.val)) == (8, 2)
    assert data.train.read(0).shape == (20, 20, 3)


def test_every_known_set_exists_in_torchvision():
    for name in (*torchvision_sets.SETS, *idx.IDX_SETS):
        assert hasattr(torchvision.datasets, name)
