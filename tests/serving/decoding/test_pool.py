"""The pool of decoding processes: the same pixels and errors, and no image lost if a process ends."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.preprocess import transform
from models.preprocess.errors import ImageError, TooComplexError
from models.spec import InputSpec
from serving.decoding import client, protocol
from serving.decoding.pool import Decoders
from serving.process.signals import SERVICE_STOP
from tests.servers import PHOTOS, ROOT
from tests.serving.decoding.processes import CAT, SPEC, gone, pids, program, workers_of


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    pool = Decoders(2)
    pool.start()
    yield pool
    pool.close()


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK"]),
    format_=st.sampled_from(["JPEG", "PNG", "WebP"]),
    size=st.integers(1, 64),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    crop=st.floats(0.05, 1),
)
@settings(max_examples=60, deadline=None)
def test_pixels_are_those_of_this_process(
    decoders: Decoders, width: int, height: int, mode: str, format_: str, size: int, interpolation: str, crop: float
) -> None:
    spec = InputSpec(size=size, interpolation=interpolation, crop_fraction=crop)  # type: ignore[arg-type]
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    if format_ != "PNG":
        picture = picture.convert("RGB" if format_ == "WebP" or mode in ("RGBA", "P") else mode)
    elif mode == "CMYK":
        picture = picture.convert("RGB")
    file = io.BytesIO()
    picture.save(file, format_)

    pixels = decoders.load(file.getvalue(), spec)

    np.testing.assert_array_equal(pixels, transform.load(file.getvalue(), spec))


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"GIF89a", CAT[:2000], b"\xff\xd8\xff" + bytes(20_000_000), CAT],
    ids=["empty", "text", "gif", "cut", "large", "pixels"],
)
def test_errors_are_those_of_this_process(decoders: Decoders, data: bytes) -> None:
    with pytest.raises(ImageError) as expected:
        transform.load(data, SPEC, max_pixels=100)

    with pytest.raises(ImageError) as error:
        decoders.load(data, SPEC, max_pixels=100)

    assert (type(error.value), str(error.value)) == (type(expected.value), str(expected.value))


def test_many_threads_each_get_their_own_picture(decoders: Decoders) -> None:
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    expected = [transform.load(photo, SPEC) for photo in photos]
    wrong: list[int] = []

    def decode(start: int) -> None:
        for turn in range(10):
            which = (start + turn) % len(photos)
            if not np.array_equal(decoders.load(photos[which], SPEC), expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=decode, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_process_that_was_killed_is_replaced(decoders: Decoders) -> None:
    before = pids(decoders)
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    for _ in before:
        np.testing.assert_array_equal(decoders.load(CAT, SPEC), transform.load(CAT, SPEC))

    assert not set(pids(decoders)) & set(before)
    assert len(pids(decoders)) == len(before)


def test_signals_to_the_whole_service_do_not_end_its_processes(decoders: Decoders) -> None:
    before = pids(decoders)
    for pid in before:
        for number in (signal.SIGTERM, signal.SIGINT, SERVICE_STOP):
            os.kill(pid, number)

    for _ in before:
        decoders.load(CAT, SPEC)

    assert pids(decoders) == before


@pytest.mark.parametrize(
    ("ends", "expected"), [("exit 3", RuntimeError), ("kill -9 $$", MemoryError)], ids=["exit", "killed"]
)
def test_a_picture_that_ends_its_process_twice_fails_alone(
    ends: str, expected: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Decoders(1)
    pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program(tmp_path, ends))
        os.kill(pids(pool)[0], signal.SIGKILL)

        with pytest.raises(expected, match="ended"):
            pool.load(CAT, SPEC)

    assert pool.load(CAT, SPEC).shape == (224, 224, 3)
    pool.close()


def test_the_rest_of_a_reply_is_not_taken_for_the_next_one(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    for _ in pids(decoders):
        with monkeypatch.context() as patch:
            patch.setattr(protocol, "receive_into", fail)
            with pytest.raises(MemoryError):
                decoders.load(CAT, SPEC)

    for path in [*PHOTOS.glob("*.jpg")][:4]:
        np.testing.assert_array_equal(decoders.load(path.read_bytes(), SPEC), transform.load(path.read_bytes(), SPEC))


def test_a_picture_that_takes_too_long_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "import sys, time, serving.decoding.worker as process\n"
    slow += "process.MAX_SECONDS = 1\nprocess.load = lambda data, spec, max_pixels: time.sleep(60)\n"
    slow += "process.main(int(sys.argv[-1]))"
    (tmp_path / "slow.py").write_text(slow)
    pool = Decoders(1)
    pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program(tmp_path, f"exec {sys.executable} {tmp_path}/slow.py $4"))
        os.kill(pids(pool)[0], signal.SIGKILL)

        with pytest.raises(TooComplexError, match="takes over 30 s to decode: save it again"):
            pool.load(CAT, SPEC)

    assert pool.load(CAT, SPEC).shape == (224, 224, 3)
    pool.close()


def test_a_process_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Decoders(1)
    pool.start()
    (hung,) = pids(pool)
    os.kill(hung, signal.SIGSTOP)

    # The next process has the whole time: on a busy machine it starts slowly.
    with monkeypatch.context() as patch:
        patch.setattr(client, "HUNG_SECONDS", 0.5)
        with pytest.raises(TooComplexError, match="save it again"):
            pool.load(CAT, SPEC)

    assert gone([hung])
    assert pool.load(CAT, SPEC).shape == (224, 224, 3)
    pool.close()


def test_a_process_that_can_not_be_started_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Decoders(1)
    pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/python")
        os.kill(pids(pool)[0], signal.SIGKILL)

        with pytest.raises(MemoryError, match="can't be started"):
            pool.load(CAT, SPEC)

    assert pool.load(CAT, SPEC).shape == (224, 224, 3)
    pool.close()


def test_a_folder_named_models_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    pool = Decoders(1)

    pool.start()

    assert len(pids(pool)) == 1
    pool.close()


def test_processes_end_with_the_pool(tmp_path: Path) -> None:
    pool = Decoders(2)
    pool.start()
    before = pids(pool)

    pool.close()

    assert len(before) == 2
    assert gone(before)
    assert pids(pool) == []


def test_processes_end_with_a_service_that_is_killed() -> None:
    script = (
        "import time\nfrom serving.decoding.pool import Decoders\n"
        "pool = Decoders(2)\npool.start()\nprint('started', flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "started\n"
        decoding = [process.pid for process in workers_of(service.pid)]

        service.kill()

    assert len(decoding) == 2
    assert gone(decoding)
