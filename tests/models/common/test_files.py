"""Temporary files and folders of killed processes are removed, those of living ones never."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.common.files import LockedError, atomic_path, locked, staged_folder, write_atomic
from tests.servers import ROOT

WRITER = """
import sys
from pathlib import Path
from models.common.files import atomic_path, staged_folder
folder = Path(sys.argv[1])
with atomic_path(folder / "model.fp32.onnx") as file, staged_folder(folder / "mine") as stage:
    file.write_bytes(b"half")
    (stage / "inner").mkdir()
    (stage / "inner" / "file").write_bytes(b"half")
    print(flush=True)
    input()
"""

NEXT = """
import sys
from pathlib import Path
from models.common.files import staged_folder, write_atomic
folder = Path(sys.argv[1])
write_atomic(folder / "model.fp32.onnx", b"whole")
with staged_folder(folder / "mine"):
    pass
"""


def writer(folder: Path) -> "subprocess.Popen[str]":
    """Start a process that is in the middle of its writes."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "\n"
    return process


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_next_write_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    others = {".model.fp32.notes.onnx", ".mine.training", ".model.int8.0123abcd.onnx"}
    for name in others:
        (tmp_path / name).touch()
    with writer(tmp_path) as killed:
        killed.send_signal(signal.SIGKILL)
    left = names(tmp_path) - others
    with writer(tmp_path) as living:
        at_work = names(tmp_path) - left - others

        subprocess.run([sys.executable, "-c", NEXT, tmp_path], cwd=ROOT, check=True)

        assert (len(left), len(at_work)) == (2, 2)
        assert names(tmp_path) == others | at_work | {"model.fp32.onnx"}
        living.communicate("\n")
    assert (living.returncode, (tmp_path / "model.fp32.onnx").read_bytes()) == (0, b"half")
    assert names(tmp_path) == others | {"model.fp32.onnx"}


def test_a_link_in_the_place_of_a_leftover_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / ".x.0123abcd").symlink_to("mine")

    write_atomic(tmp_path / "x", b"")

    assert names(tmp_path) == {"mine", "x", ".x.0123abcd"}
    assert names(tmp_path / "mine") == {"file"}


def test_writes_within_writes(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with atomic_path(target) as outer, staged_folder(tmp_path / "f") as stage:
        write_atomic(target, b"inner")
        with staged_folder(tmp_path / "f") as other:
            assert stage != other
        outer.write_bytes(b"outer")
        assert stage.exists()
    assert (names(tmp_path), target.read_bytes()) == ({"x"}, b"outer")


def test_a_lock_file_exists_only_while_it_is_held(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / ".lock"
    # As a killed process leaves it.
    lock.parent.mkdir()
    lock.touch()

    with locked(lock):
        with pytest.raises(LockedError), locked(lock):
            pass
        assert lock.exists()
    assert names(lock.parent) == set()
