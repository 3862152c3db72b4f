"""Processes that decode for the service: the same pixels and errors, and nothing lost where one of them ends."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.common.errors import HalftoneError
from models.preprocess import transform as preprocess
from models.preprocess.decode import ImageError
from models.spec import InputSpec
from serving.decoding import protocol as wire
from serving.decoding.placement import decoding, lock_share
from serving.decoding.pool import Decoders
from serving.process.signals import ALL_STOP
from serving.settings import Settings
from tests.servers import PHOTOS, ROOT, Server, serve

SPEC = InputSpec(size=224)
CAT = (PHOTOS / "cat.jpg").read_bytes()
FAST = 10_000.0


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    pool = Decoders(2)
    pool.start()
    yield pool
    pool.close()


def gone(pids: list[int]) -> bool:
    """Whether these processes end within some seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.02)
    return False


def program(folder: Path, text: str) -> str:
    """A shell script to be started in place of Python."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


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

    np.testing.assert_array_equal(pixels, preprocess.load(file.getvalue(), spec))


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"GIF89a", CAT[:2000], b"\xff\xd8\xff" + bytes(20_000_000), CAT],
    ids=["empty", "text", "gif", "cut", "large", "pixels"],
)
def test_errors_are_those_of_this_process(decoders: Decoders, data: bytes) -> None:
    with pytest.raises(ImageError) as expected:
        preprocess.load(data, SPEC, max_pixels=100)

    with pytest.raises(ImageError) as error:
        decoders.load(data, SPEC, max_pixels=100)

    assert (type(error.value), str(error.value)) == (type(expected.value), str(expected.value))


def test_many_threads_each_get_their_own_picture(decoders: Decoders) -> None:
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    expected = [preprocess.load(photo, SPEC) for photo in photos]
    wrong: list[int] = []

    def ask(place: int) -> None:
        for turn in range(10):
            which = (place + turn) % len(photos)
            if not np.array_equal(decoders.load(photos[which], SPEC), expected[which]):
                wrong.append(which)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_process_that_was_killed_is_replaced(decoders: Decoders) -> None:
    before = decoders.pids
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    for _ in before:
        np.testing.assert_array_equal(decoders.load(CAT, SPEC), preprocess.load(CAT, SPEC))

    assert not set(decoders.pids) & set(before)
    assert len(decoders.pids) == len(before)


def test_signals_to_the_whole_service_do_not_reach_what_is_being_decoded(decoders: Decoders) -> None:
    before = decoders.pids
    for pid in before:
        for number in (signal.SIGTERM, signal.SIGINT, ALL_STOP):
            os.kill(pid, number)

    for _ in before:
        decoders.load(CAT, SPEC)

    assert decoders.pids == before


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
        os.kill(pool.pids[0], signal.SIGKILL)

        with pytest.raises(expected, match="ended"):
            pool.load(CAT, SPEC)

    assert pool.load(CAT, SPEC).shape == (224, 224, 3)
    pool.close()


def test_what_was_left_of_one_picture_is_not_taken_for_the_next(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    for _ in decoders.pids:
        with monkeypatch.context() as patch:
            patch.setattr(wire, "receive_into", fail)
            with pytest.raises(MemoryError):
                decoders.load(CAT, SPEC)

    for path in [*PHOTOS.glob("*.jpg")][:4]:
        np.testing.assert_array_equal(decoders.load(path.read_bytes(), SPEC), preprocess.load(path.read_bytes(), SPEC))


def test_a_picture_may_not_take_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "import sys, time, serving.decoding.worker as process\n"
    slow += "process.TOO_LONG = 1\nprocess.load = lambda data, spec, max_pixels: time.sleep(60)\n"
    slow += "process.main(int(sys.argv[-1]))"
    (tmp_path / "slow.py").write_text(slow)
    pool = Decoders(1)
    pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program(tmp_path, f"exec {sys.executable} {tmp_path}/slow.py $4"))
        os.kill(pool.pids[0], signal.SIGKILL)

        with pytest.raises(RuntimeError, match="took over 30 s"):
            pool.load(CAT, SPEC)

    assert pool.load(CAT, SPEC).shape == (224, 224, 3)
    pool.close()


def test_no_memory_for_a_process_is_no_memory_for_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Decoders(1)
    pool.start()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/python")
        os.kill(pool.pids[0], signal.SIGKILL)

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

    assert len(pool.pids) == 1
    pool.close()


def test_processes_end_with_the_pool(tmp_path: Path) -> None:
    pool = Decoders(2)
    pool.start()
    pids = pool.pids

    pool.close()

    assert len(pids) == 2
    assert gone(pids)
    assert pool.pids == []


def test_processes_end_with_a_service_that_is_killed() -> None:
    script = (
        "import time\nfrom serving.decoding.pool import Decoders\n"
        "pool = Decoders(2)\npool.start()\nprint(*pool.pids, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        pids = [int(pid) for pid in service.stdout.readline().split()]

        service.kill()

    assert len(pids) == 2
    assert gone(pids)


@pytest.mark.parametrize(
    ("threads", "rate", "more"),
    [(1, FAST, False), (2, FAST, False), (4, FAST, True), (16, FAST, True), (2, 300.0, False), (8, 1200.0, False)],
)
def test_processes_decode_where_threads_would_wait_for_each_other(threads: int, rate: float, more: bool) -> None:
    assert (lock_share(0.001, threads, rate) > 0.6) == more


def test_settings_decide_where_pictures_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.cores", lambda: 16)
    pool = Decoders(1)
    try:
        assert decoding("m", pool, Settings(model="m", threads=16, decoders=0), SPEC, FAST) == preprocess.load
        assert decoding("m", pool, Settings(model="m", threads=1), SPEC, FAST) == preprocess.load
        assert pool.pids == []
        assert decoding("m", pool, Settings(model="m", threads=16), SPEC, FAST) == pool.load
        assert decoding("m", pool, Settings(model="m", threads=1, decoders=1), SPEC, 1.0) == pool.load
        assert len(pool.pids) == 1
    finally:
        pool.close()


def test_processes_that_can_not_be_used_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.cores", lambda: 16)
    other = "import sys; sys.argv = ['', sys.argv[-1]]\n"
    other += "import numpy, serving.decoding.worker as process\n"
    other += "process.load = lambda data, spec, max_pixels: numpy.zeros((224, 224, 3), numpy.uint8)\n"
    other += "process.main(int(sys.argv[1]))"
    (tmp_path / "other.py").write_text(other)
    programs = {
        "can't be used": "/no/python",
        "ended twice": program(tmp_path, "exit 3"),
    }
    for reason, executable in programs.items():
        pool = Decoders(2)
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(HalftoneError, match=f"{reason}.*HALFTONE_DECODERS=0"):
            decoding("m", pool, Settings(model="m", decoders=2), SPEC, FAST)
        assert decoding("m", pool, Settings(model="m", threads=16), SPEC, FAST) == preprocess.load
        assert pool.pids == []

    monkeypatch.undo()
    pool = Decoders(1)
    monkeypatch.setattr(sys, "executable", program(tmp_path, f'exec {sys.executable} {tmp_path}/other.py "$@"'))
    with pytest.raises(HalftoneError, match=r"other pixels.*HALFTONE_DECODERS=0"):
        pool.start()
    assert pool.pids == []


@pytest.fixture(scope="module")
def with_processes(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"HALFTONE_DECODERS": "2", "HALFTONE_MAX_PIXELS": "1000000"}
    with serve(artifacts, tmp_path_factory.mktemp("decoding") / "log", **settings) as running:
        yield running


def processes(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if "serving.decoding.worker" in child.cmdline()]


def test_the_service_answers_as_without_them(with_processes: Server, server: Server) -> None:
    for photo in sorted(PHOTOS.glob("*.jpg")):
        for data in (photo.read_bytes(), photo.read_bytes()[:3000]):
            answers = [
                each.post("/classify", content=data, headers={"Content-Type": "image/jpeg"})
                for each in (with_processes, server)
            ]
            assert answers[0].status_code == answers[1].status_code
            if answers[0].status_code == 200:
                assert answers[0].json() == answers[1].json()

    assert len(processes(with_processes)) == 2


def test_the_service_goes_on_where_they_are_killed(with_processes: Server) -> None:
    before = processes(with_processes)
    for process in before:
        process.kill()

    codes = [
        with_processes.post("/classify", content=CAT, headers={"Content-Type": "image/jpeg"}).status_code
        for _ in range(4)
    ]

    assert codes == [200] * 4
    assert gone([process.pid for process in before])


def test_the_benchmark_compares_both_places(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    command = [sys.executable, "-m", "serving.decoding.benchmark", "--threads", "1", "2", "--rounds", "1"]

    result = subprocess.run(
        [*command, "--seconds", "0.2", "--output", str(output)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert "a process each" in result.stdout
    report = json.loads(output.read_text())
    assert list(report["turns"]) == ["1", "2"]
    assert all(turn["rate"] > 0 for ways in report["turns"].values() for turns in ways.values() for turn in turns)


@pytest.mark.parametrize(
    "arguments", [["--threads", "0"], ["--rounds", "0"], ["--seconds", "0"], ["--output", "x.txt"]]
)
def test_the_benchmark_refuses_what_makes_no_sense(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "serving.decoding.benchmark", *arguments]

    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.stderr
