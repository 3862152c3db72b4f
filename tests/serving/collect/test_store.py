"""The folder of collected pictures: limits, the same content once, several processes, kills."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.common.errors import HalftoneError
from models.preprocess.collected import collected_pictures, is_collected, read_answer
from serving.collect.store import UNLIMITED, Limits, Store, make_folder
from tests.servers import ROOT

KEPT = Limits(size=1000, pictures=4, days=1)


def name(number: int) -> str:
    return f"{number:032x}.jpg"


def files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if is_collected(path.name)}


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("add", "add_by_other", "age", "remove")), st.integers(0, 9), st.integers(1, 600)),
        st.tuples(st.sampled_from(("reopen", "clear", "tidy")), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_limits_hold_after_every_operation_and_a_content_is_there_once(operations: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "notes.txt").write_text("left alone")
        mine, other = Store(folder, KEPT), Store(folder, KEPT)
        for operation, number, size in operations:
            path = folder / name(number)
            before = files(folder)
            if operation in ("add", "add_by_other"):
                added = (mine if operation == "add" else other).add(path.name, b"x" * size)
                assert added == (path.name not in before)
                assert path.exists()
            elif operation == "age" and path.exists():
                os.utime(path, (0, 0))
                mine = Store(folder, KEPT)
                mine.tidy()
                assert not path.exists()
            elif operation == "remove":
                path.unlink(missing_ok=True)
            elif operation == "reopen":
                mine = Store(folder, KEPT)
            elif operation == "clear":
                assert mine.clear() == len(before)
            elif operation == "tidy":
                mine.tidy()
            now = files(folder)
            assert len(now) <= KEPT.pictures
            assert sum(now.values()) <= KEPT.size
            contents = Store(folder, KEPT).contents()
            assert (contents.pictures, contents.size) == (len(now), sum(now.values()))
        assert (folder / "notes.txt").exists()


def test_the_oldest_make_room(tmp_path: Path) -> None:
    store = Store(tmp_path, KEPT)
    for number in range(6):
        assert store.add(name(number), b"x" * 200)

    assert set(files(tmp_path)) == {name(number) for number in range(2, 6)}
    assert not store.add(name(9), b"x" * 1001)
    assert len(files(tmp_path)) == 4


def test_a_full_disk_leaves_nothing_and_the_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path, KEPT)
    store.add(name(1), b"x")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.add(name(2), b"x")

    assert set(os.listdir(tmp_path)) == {name(1), ".lock"}
    assert store.add(name(2), b"x")


def test_a_folder_is_its_user_s_alone_and_one_that_can_not_be_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "new" / "collected")
    (tmp_path / "file").touch()

    assert (tmp_path / "new" / "collected").stat().st_mode & 0o777 == 0o700
    Store(tmp_path / "new" / "collected", KEPT).add(name(1), b"x")
    assert (tmp_path / "new" / "collected" / name(1)).stat().st_mode & 0o777 == 0o600
    with pytest.raises(HalftoneError, match=r"HALFTONE_COLLECT: .* can't be written"):
        make_folder(tmp_path / "file")


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from models.preprocess.collected import Answer, encode, file_name
from serving.collect.store import Limits, Store

answer = Answer(model="m", version="1", variant="v", time="now", reason="random", predictions=(("a" * 2000, 0.5),))
pictures = [np.random.default_rng(seed).integers(0, 256, (200, 200, 3), dtype=np.uint8) for seed in range(40)]
files = [(file_name(pixels), encode(pixels, answer)) for pixels in pictures]
chance = random.Random(0)
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        store = Store(Path(sys.argv[1]), Limits(size=2**21, pictures=25, days=1))
        while True:
            for name, data in files:
                store.add(name, data)
    time.sleep(chance.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_kills_leave_no_half_written_picture(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLER, str(tmp_path), "30"], cwd=ROOT, check=True)

    kept = collected_pictures(tmp_path)
    assert 0 < len(kept) <= 25
    for path in kept:
        assert read_answer(path).predictions == (("a" * 2000, 0.5),)
        with Image.open(path) as image:
            image.load()
    # At most the one that the last kill left, which the next write takes.
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in kept} <= {".lock", ".writing"}
    Store(tmp_path, UNLIMITED).add(name(1), b"x")
    assert not (tmp_path / ".writing").exists()
