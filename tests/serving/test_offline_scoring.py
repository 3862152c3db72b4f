"""Offline scoring: a real run on Ray that is killed and goes on, and what every row says."""

import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from export.runtime import Runtime
from export.variants import load
from models.bundle.store import open_bundle
from models.common.errors import HalftoneError
from serving.batch.__main__ import BatchConfig, batch
from serving.batch.inputs import Pictures
from serving.batch.job import Job, Workplace
from serving.batch.run import score
from serving.batch.scorer import Scorer
from serving.settings import Settings
from tests.servers import PHOTOS, ROOT, START_SECONDS, Server, environment

COUNT = 160
DAMAGED_EVERY = 20
MODEL = "efficientnet_lite0"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def command(folder: Path, output: Path, *more: str) -> list[str]:
    module = [sys.executable, "-m", "serving.batch"]
    return [*module, "--input", str(folder), "--output", str(output), "--workers", "2", "--top-k", "3", *more]


def crops(folder: Path, count: int) -> list[str]:
    """Different parts of the sample photographs as JPEG files; some are cut short."""
    chance = random.Random(1)
    photos = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    names = []
    for index in range(count):
        photo = photos[index % len(photos)]
        width, height = (int(side * chance.uniform(0.6, 1)) for side in photo.size)
        left, top = chance.randint(0, photo.width - width), chance.randint(0, photo.height - height)
        path = folder / str(index % 3) / f"{index:04d}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((left, top, left + width, top + height)).resize((500, 375)).save(path, "JPEG", quality=90)
        if index % DAMAGED_EVERY == 3:
            path.write_bytes(path.read_bytes()[:3000])
        names.append(path.relative_to(folder).as_posix())
    (folder / "notes.txt").write_text("no picture")
    return sorted(names)


@dataclass
class Interrupted:
    """A run that was killed, and the one that went on."""

    folder: Path
    output: Path
    names: list[str]
    listening: set[str]
    libraries: set[str]
    family: list[psutil.Process]
    parts: int
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def interrupted(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    place = tmp_path_factory.mktemp("batch")
    folder, output = place / "pictures", place / "rows.parquet"
    names = crops(folder, COUNT)
    first = subprocess.Popen(command(folder, output), cwd=ROOT, env=environment(artifacts))
    parts = output.with_name("rows.parquet.parts")
    end = time.monotonic() + START_SECONDS
    while not list(parts.glob("part-*")):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    family = psutil.Process(first.pid).children(recursive=True)
    # Held while it is looked at: else it might be done before it is killed.
    for process in family:
        process.suspend()
    listening, libraries = _sockets(family), _libraries(family)
    scorers = [process for process in family if "MapWorker" in process.name()]
    first.kill()
    first.wait()
    for process in family:
        process.resume()
    assert scorers
    assert psutil.wait_procs(scorers, timeout=30)[1] == []
    done = len(list(parts.glob("part-*")))
    second = subprocess.run(
        command(folder, output), cwd=ROOT, env=environment(artifacts), capture_output=True, text=True, check=False
    )
    return Interrupted(folder, output, names, listening, libraries, family, done, second)


def _sockets(processes: list[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip)
    return found


def _libraries(processes: list[psutil.Process]) -> set[str]:
    return {Path(each.path).name for process in processes for each in process.memory_maps()}


def test_a_killed_run_goes_on_and_holds_every_picture_once(interrupted: Interrupted) -> None:
    rows = pq.read_table(interrupted.output)
    kept = int(interrupted.second.stdout.partition(" before")[0].rpartition(" ")[2])

    assert interrupted.second.returncode == 0, interrupted.second.stderr
    assert 0 < kept < COUNT
    assert kept == interrupted.parts * 16
    assert rows.column("path").to_pylist() == interrupted.names
    assert not interrupted.output.with_name("rows.parquet.parts").exists()
    assert interrupted.second.stderr == ""


def test_ray_listens_to_this_machine_alone(interrupted: Interrupted) -> None:
    assert interrupted.listening
    assert interrupted.listening <= LOOPBACK


def test_its_workers_load_no_training_library(interrupted: Interrupted) -> None:
    assert any(name.startswith("libopenvino") for name in interrupted.libraries)
    assert not [name for name in interrupted.libraries if name.startswith("libtorch")]


def test_a_damaged_picture_is_an_error_in_its_row(interrupted: Interrupted) -> None:
    rows = pq.read_table(interrupted.output).to_pylist()
    damaged = [row for row in rows if row["error_code"]]

    assert len(damaged) == COUNT // DAMAGED_EVERY
    assert {row["error_code"] for row in damaged} == {"broken_image"}
    assert all(row["error"] and row["labels"] is None for row in damaged)
    assert f"{len(damaged)} x broken_image" in interrupted.second.stdout


def test_a_row_says_what_the_service_answers(interrupted: Interrupted, server: Server) -> None:
    rows = [row for row in pq.read_table(interrupted.output).to_pylist() if not row["error_code"]]

    for row in rows[:: len(rows) // 12]:
        answer = server.post("/classify?top_k=3", content=(interrupted.folder / row["path"]).read_bytes()).json()
        assert (row["model"], row["version"], row["variant"]) == (answer["model"], answer["version"], answer["variant"])
        assert row["labels"] == [each["label"] for each in answer["predictions"]]
        assert row["indices"] == [each["index"] for each in answer["predictions"]]
        expected = [each["probability"] for each in answer["predictions"]]
        assert row["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_a_finished_output_is_left_alone(interrupted: Interrupted, artifacts: Path) -> None:
    before = interrupted.output.read_bytes()
    again = command(interrupted.folder, interrupted.output)
    same = subprocess.run(again, cwd=ROOT, env=environment(artifacts), capture_output=True, text=True, check=False)
    other = [*again, "--top-k", "1"]
    refused = subprocess.run(other, cwd=ROOT, env=environment(artifacts), capture_output=True, text=True, check=False)

    assert same.returncode == 0
    assert f"all {COUNT} pictures already" in same.stdout
    assert refused.returncode == 2
    assert "top_k was 3 and is 1 now" in refused.stderr
    assert interrupted.output.read_bytes() == before
    assert not interrupted.output.with_name("rows.parquet.parts").exists()


@pytest.fixture
def settings(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))
    return Settings(model=MODEL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four files, one of each fate."""
    place = tmp_path / "pictures"
    place.mkdir()
    (place / "a cat.jpg").write_bytes((PHOTOS / "cat.jpg").read_bytes())
    Image.new("RGB", (20, 20)).save(place / "b.gif")
    (place / "c.png").write_bytes(b"")
    (place / "d.webp").write_bytes(b"x" * 200_000)
    return place


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


def test_processes_that_share_the_cores_do_not_compute_on_the_same_one(settings: Settings) -> None:
    # OpenVINO moves the calling thread for as long as it computes.
    runtime = load(open_bundle(MODEL), "openvino-fp32", threads=1)
    everywhere = os.sched_getaffinity(0)
    allowed, over = [], threading.Event()
    thread = threading.Thread(target=_run_until, args=(runtime, over))
    thread.start()
    for _ in range(40):
        allowed.append(os.sched_getaffinity(thread.native_id or 0))
        time.sleep(0.005)
    over.set()
    thread.join()

    assert set(map(frozenset, allowed)) == {frozenset(everywhere)}


def _run_until(runtime: Runtime, over: threading.Event) -> None:
    pixels = np.zeros((1, *runtime.shape), np.uint8)
    while not over.is_set():
        runtime.run(pixels)


def test_it_says_what_is_missing_where_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(HalftoneError, match=r"needs ray, which is not installed.*halftone\[batch\]"):
        batch(BatchConfig(input=str(tmp_path), output=tmp_path / "rows.parquet"))


@pytest.mark.parametrize(
    ("location", "top_k", "message"),
    [
        ("nowhere", 5, "is not a folder"),
        ("empty", 5, "holds no picture"),
        ("what://bucket", 5, "can't be reached"),
        ("pictures", 1001, "--top-k must be from 1 to the 1000 classes"),
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


def test_a_file_that_is_not_ours_is_not_replaced(settings: Settings, folder: Path) -> None:
    output = folder.parent / "rows.parquet"
    output.write_bytes(b"mine")

    with pytest.raises(HalftoneError, match="was not made by this command"):
        score(settings, location=str(folder), output=output, top_k=5, workers=1, progress=lambda done, total: None)

    assert output.read_bytes() == b"mine"


def test_two_commands_do_not_work_on_one_output(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "rows.parquet")

    with place.claimed(), pytest.raises(HalftoneError, match="another command"), place.claimed():
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_part_that_lacks_rows_is_not_put_into_the_output(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "rows.parquet")
    job = Job(input="x", model="m", version="v", variant="w", top_k=1, max_pixels=1, max_bytes=1, pictures=2)
    place.begin(job, ["a.jpg", "b.jpg"])
    row = {"path": "a.jpg", "model": "m", "version": "v", "variant": "w"}
    pq.write_table(pa.Table.from_pylist([row]), place.part(0))

    assert place.missing(job) == []
    with pytest.raises(HalftoneError, match="holds 1 rows instead of 2"):
        place.finish(job)
    assert not place.output.exists()


def test_its_flags_are_checked() -> None:
    with pytest.raises(HalftoneError, match=r"must end in \.parquet"):
        BatchConfig(input=".", output=Path("rows.csv"))
    with pytest.raises(HalftoneError, match="--workers must be 0 or more"):
        BatchConfig(input=".", output=Path("rows.parquet"), workers=-1)


def test_ray_ends_with_the_command_that_was_killed(interrupted: Interrupted) -> None:
    """The last test: Ray's agents try for a minute to tell of the end."""
    _, alive = psutil.wait_procs(interrupted.family, timeout=90)

    assert alive == []
