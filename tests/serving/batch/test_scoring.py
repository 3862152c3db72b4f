"""Offline scoring without Ray: the rows of an input folder, refused requests, and the parts of an output."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.common.errors import HalftoneError
from serving.batch.__main__ import BatchConfig, batch
from serving.batch.inputs import Pictures
from serving.batch.job import Job, PartsFolder
from serving.batch.run import score
from serving.batch.scorer import Scorer
from serving.settings import Settings
from tests.servers import PHOTOS, ROOT

MODEL = "efficientnet_lite0"


@pytest.fixture
def settings(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))
    return Settings(model=MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Create a folder of four files, one for each kind of result."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a cat.jpg").write_bytes((PHOTOS / "cat.jpg").read_bytes())
    Image.new("RGB", (20, 20)).save(pictures / "b.gif")
    (pictures / "c.png").write_bytes(b"")
    (pictures / "d.webp").write_bytes(b"x" * 200_000)
    return pictures


@pytest.mark.parametrize("scheme", ["", "file://", "local://"])
def test_a_folder_may_be_named_by_a_path_or_a_uri(settings: Settings, folder: Path, scheme: str) -> None:
    location = f"{scheme}{folder}"
    names = Pictures(location).names()
    limited = replace(settings, threads=2, max_body_mb=0.15)

    table = Scorer(limited, Pictures(location), 2).score([*names, "gone.jpg"])

    assert names == ["a cat.jpg", "b.gif", "c.png", "d.webp"]
    assert table.column("path").to_pylist() == [*names, "gone.jpg"]
    assert table.column("error_code").to_pylist() == [
        None,
        "unsupported_media_type",
        "not_an_image",
        "too_large",
        "unreadable",
    ]
    assert len(table.column("labels")[0].as_py()) == 2


def test_pictures_are_recognised_by_content_and_other_files_are_counted(settings: Settings, folder: Path) -> None:
    (folder / "e.notes").write_text("no picture")
    (folder / "f.txt").write_bytes((PHOTOS / "cat.jpg").read_bytes())
    (folder / "photo of a cat").write_bytes((PHOTOS / "cat.jpg").read_bytes())
    (folder / ".hidden").write_text("no picture")
    pictures = Pictures(str(folder))

    assert pictures.names() == ["a cat.jpg", "b.gif", "c.png", "d.webp", "photo of a cat"]
    assert pictures.left_out == ["e.notes", "f.txt"]


PINNED = """
import os, sys, threading, time
import numpy as np
from export.variants import load
from models.bundle.store import open_bundle

runtime = load(open_bundle(sys.argv[1]), "openvino-fp32", threads=1)
stop = threading.Event()

def run():
    while not stop.is_set():
        runtime.run(np.zeros((1, *runtime.shape), np.uint8))

thread, allowed = threading.Thread(target=run), set()
thread.start()
for _ in range(40):
    allowed.add(frozenset(os.sched_getaffinity(thread.native_id)))
    time.sleep(0.005)
stop.set()
thread.join()
assert allowed == {frozenset(os.sched_getaffinity(0))}, allowed
"""


@pytest.mark.usefixtures("every_core")
def test_processes_that_share_the_cores_do_not_compute_on_the_same_core(settings: Settings) -> None:
    """OpenVINO restricts the calling thread to some cores while it computes, those of its first use in a process."""
    ended = subprocess.run([sys.executable, "-c", PINNED, MODEL], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr


def test_it_names_what_is_missing_if_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(HalftoneError, match=r"needs ray, which is not installed.*pip install '\.\[batch\]'"):
        batch(BatchConfig(input=str(tmp_path), output=tmp_path / "rows.parquet"))


@pytest.mark.parametrize(
    ("location", "top_k", "message"),
    [
        ("nowhere", 5, "is not a folder"),
        ("empty", 5, "holds no picture"),
        ("what://bucket", 5, "can't be reached"),
        ("pictures", 0, "--top-k must be at least 1, not 0"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(
    settings: Settings, folder: Path, location: str, top_k: int, message: str
) -> None:
    (folder.parent / "empty").mkdir()
    where = location if "://" in location else str(folder.parent / location)
    output = folder.parent / "rows.parquet"

    with pytest.raises(HalftoneError, match=message):
        score(settings, location=where, output=output, top_k=top_k, workers=1, progress=lambda done, total: None)

    assert sorted(path.name for path in folder.parent.iterdir()) == ["empty", "pictures"]


def test_a_file_of_another_program_is_not_replaced(settings: Settings, folder: Path) -> None:
    output = folder.parent / "rows.parquet"
    output.write_bytes(b"mine")

    with pytest.raises(HalftoneError, match="was not made by this command"):
        score(settings, location=str(folder), output=output, top_k=5, workers=1, progress=lambda done, total: None)

    assert output.read_bytes() == b"mine"


def test_two_commands_do_not_work_on_one_output(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path / "rows.parquet")

    with parts.locked(), pytest.raises(HalftoneError, match="another command"), parts.locked():
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_part_that_lacks_rows_is_not_merged_into_the_output(tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path / "rows.parquet")
    job = Job(input="x", model="m", version="v", variant="w", top_k=1, max_pixels=1, max_bytes=1, pictures=2)
    parts.start(job, ["a.jpg", "b.jpg"])
    row = {"path": "a.jpg", "model": "m", "version": "v", "variant": "w"}
    pq.write_table(pa.Table.from_pylist([row]), parts.part(0))

    assert parts.missing(job) == []
    with pytest.raises(HalftoneError, match="holds 1 rows instead of 2"):
        parts.finish(job)
    assert not parts.output.exists()


def test_its_flags_are_checked() -> None:
    with pytest.raises(HalftoneError, match=r"must end in \.parquet"):
        BatchConfig(input=".", output=Path("rows.csv"))
    with pytest.raises(HalftoneError, match="--workers must be 0 or more"):
        BatchConfig(input=".", output=Path("rows.parquet"), workers=-1)
