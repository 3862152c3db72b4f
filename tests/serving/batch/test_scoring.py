"""Offline scoring without Ray: the rows of an input folder, refused requests, and the parts of an output."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.batch import run
from serving.batch.__main__ import BatchConfig, batch
from serving.batch.inputs import Pictures
from serving.batch.job import Job, PartsFolder
from serving.batch.nodes import Worker, discard, packed, prepare
from serving.batch.run import score
from serving.batch.scorer import Scorer
from serving.settings import Settings
from tests.servers import PHOTOS, ROOT, free_port

MODEL = "efficientnet_lite0"


@pytest.fixture
def settings(small: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with which nothing has to be measured first."""
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(small))
    return Settings(model=MODEL, variant="onnxruntime-fp32", batch=8)


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
    names, sizes = Pictures(location).listed()
    limited = replace(settings, threads=2, max_body_mb=0.15)

    table = Scorer(limited, Pictures(location), 2).score([*names, "gone.jpg"])

    assert names == ["a cat.jpg", "b.gif", "c.png", "d.webp"]
    assert list(sizes) == [(folder / name).stat().st_size for name in names]
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

    assert pictures.listed()[0] == ["a cat.jpg", "b.gif", "c.png", "d.webp", "photo of a cat"]
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
        batch(BatchConfig(input=str(tmp_path), output=str(tmp_path / "rows.parquet")))


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
        score(settings, location=where, output=str(output), top_k=top_k, workers=1, progress=lambda done, total: None)

    assert sorted(path.name for path in folder.parent.iterdir()) == ["empty", "pictures"]


def test_a_file_of_another_program_is_not_replaced(settings: Settings, folder: Path) -> None:
    output = folder.parent / "rows.parquet"
    output.write_bytes(b"mine")

    with pytest.raises(HalftoneError, match="was not made by this command"):
        score(settings, location=str(folder), output=str(output), top_k=5, workers=1, progress=lambda done, total: None)

    assert output.read_bytes() == b"mine"


def test_two_commands_do_not_work_on_one_output(tmp_path: Path) -> None:
    parts = PartsFolder(str(tmp_path / "rows.parquet"))

    with parts.locked(), pytest.raises(HalftoneError, match="another command"), parts.locked():
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_part_that_lacks_rows_is_not_merged_into_the_output(tmp_path: Path) -> None:
    parts = PartsFolder(str(tmp_path / "rows.parquet"))
    job = Job(input="x", model="m", version="v", variant="w", top_k=1, max_pixels=1, max_bytes=1, pictures=2)
    parts.start(job, ["a.jpg", "b.jpg"])
    row = {"path": "a.jpg", "model": "m", "version": "v", "variant": "w"}
    pq.write_table(pa.Table.from_pylist([row]), parts.part(0))

    assert parts.missing(job) == []
    with pytest.raises(HalftoneError, match="holds 1 rows instead of 2"):
        parts.finish(job)
    assert not parts.finished


def test_chunks_of_large_files_come_first_also_when_a_run_is_resumed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, given = tmp_path / "pictures", []
    folder.mkdir()
    for number in range(40):
        # Of 16, 16 and 8 files: the last chunk is the largest, and the first the smallest.
        (folder / f"{number:02d}.jpg").write_bytes(b"x" * (10, 20, 100)[number // 16])

    def score_chunks(settings: Settings, output: str, job: Job, missing: list[int], *_: object) -> None:
        given.append(missing)
        raise HalftoneError("killed")

    monkeypatch.setattr(run, "score_chunks", score_chunks)
    for _ in range(2):
        with pytest.raises(HalftoneError, match="killed"):
            score(
                settings, location=str(folder), output=str(tmp_path / "rows.parquet"), top_k=5,
                progress=lambda done, total: None,
            )  # fmt: skip
        (folder / "-later.jpg").write_bytes(b"x" * 10_000)

    assert given == [[2, 1, 0], [2, 1, 0]]


def test_an_address_without_a_cluster_is_refused_at_once(settings: Settings, folder: Path) -> None:
    output, address = folder.parent / "rows.parquet", f"ray://127.0.0.1:{free_port()}"

    with pytest.raises(HalftoneError, match=r"no cluster answers there.*ray start --head"):
        score(
            settings, location=str(folder), output=str(output), top_k=5, ray_address=address,
            progress=lambda done, total: None,
        )  # fmt: skip

    assert [path.name for path in folder.parent.iterdir()] == ["pictures"]


def test_its_flags_are_checked() -> None:
    with pytest.raises(HalftoneError, match="must be auto, HOST:PORT or ray://HOST:PORT"):
        BatchConfig(input=".", output="rows.parquet", ray_address="cluster")
    with pytest.raises(HalftoneError, match=r"must end in \.parquet"):
        BatchConfig(input=".", output="rows.csv")
    with pytest.raises(HalftoneError, match="--workers must be 0 or more"):
        BatchConfig(input=".", output="rows.parquet", workers=-1)


def waiting(output: Path, folder: Path) -> Job:
    """Start a job as the command does, without scoring anything."""
    job = Job(input=str(folder), model=MODEL, version="v", variant="", top_k=2, max_pixels=1, max_bytes=1, pictures=2)
    PartsFolder(str(output)).start(job, ["a cat.jpg", "c.png"])
    return job


def test_a_node_gets_the_bundle_and_scores_by_its_own_choice(
    settings: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "rows.parquet"
    job, files = waiting(output, folder), packed(open_bundle(MODEL))
    # A node has no folder of bundles.
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "none"))

    node = prepare(files, replace(settings, variant="", batch=8), str(output), job, cpus=6, workers=3)
    try:
        worker = Worker(node, str(output), job)
        rows = worker.score(0)
    finally:
        discard(node.artifacts)

    assert (node.workers, node.settings.threads, rows) == (3, 2, 2)
    assert f"parity/{node.settings.variant}.json" in files
    assert not Path(node.artifacts).exists()
    assert PartsFolder(str(output)).missing(job) == []


@pytest.mark.parametrize("change", ["bundle", "output", "input"])
def test_a_node_that_cannot_score_says_why(
    settings: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    output = tmp_path / "rows.parquet"
    job, files = waiting(output, folder), packed(open_bundle(MODEL))
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "none"))
    if change == "bundle":
        files["model.fp32.onnx"] += b"x"
    elif change == "output":
        output = tmp_path / "elsewhere.parquet"
    else:
        shutil.rmtree(folder)
    message = {"bundle": "model.fp32.onnx", "output": "all nodes share", "input": "is not a folder"}[change]

    with pytest.raises(HalftoneError, match=message):
        prepare(files, settings, str(output), job, cpus=1, workers=0)
