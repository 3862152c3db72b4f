"""Offline scoring on Ray: a run that is killed and resumed, its processes, and the content of every row."""

import contextlib
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from models.common.errors import HalftoneError
from serving.batch import schedule
from serving.batch.job import Job
from serving.batch.schedule import Plan, Schedule
from tests.servers import PHOTOS, ROOT, Server, environment, wait_until

COUNT = 160
RATE = re.compile(r"(\d+) now in ([\d.]+) s, ([\d.]+) images/s")
DAMAGED_EVERY = 20
RAY_SECONDS = 180
"""Ray and the workers start in 10 s on an idle machine."""
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def command(folder: Path, output: Path, *more: str) -> list[str]:
    module = [sys.executable, "-m", "serving.batch"]
    return [*module, "--input", str(folder), "--output", str(output), "--workers", "2", "--top-k", "3", *more]


def crops(folder: Path, count: int) -> list[str]:
    """Save different parts of the sample photographs as JPEG files, some of them cut short; return their names."""
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
    """A run that was killed, and the run that resumed it."""

    folder: Path
    output: Path
    names: list[str]
    listening: set[str]
    libraries: set[str]
    family: list[psutil.Process]
    parts: int
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def interrupted(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    root = tmp_path_factory.mktemp("batch")
    folder, output = root / "pictures", root / "rows.parquet"
    names = crops(folder, COUNT)
    parts = output.with_name("rows.parquet.parts")
    family: list[psutil.Process] = []
    first = subprocess.Popen(command(folder, output), cwd=ROOT, env=environment(artifacts))
    try:
        wait_for_a_part(first, parts)
        family = psutil.Process(first.pid).children(recursive=True)
        # Held while it is inspected: otherwise the run might be finished before it is killed.
        with suspended(family) as held:
            listening, libraries = _sockets(held), _libraries(held)
            scorers = [process for process in held if "ray::Worker" in process.name()]
            first.kill()
            first.wait()
        assert scorers
        assert psutil.wait_procs(scorers, timeout=30)[1] == []
        done = len(list(parts.glob("part-*")))
        second = subprocess.run(
            command(folder, output), cwd=ROOT, env=environment(artifacts), capture_output=True, text=True, check=False
        )
        yield Interrupted(folder, output, names, listening, libraries, family, done, second)
    finally:
        first.kill()
        first.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def wait_for_a_part(run: subprocess.Popen[Any], parts: Path) -> None:
    """Wait until a run has written its first part."""
    end = time.monotonic() + RAY_SECONDS
    while not list(parts.glob("part-*")):
        assert run.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


@contextlib.contextmanager
def suspended(processes: Iterable[psutil.Process]) -> Iterator[list[psutil.Process]]:
    """Hold processes until the block ends; yield them without those that end by themselves meanwhile."""
    held: list[psutil.Process] = []
    try:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
                held.append(process)
        yield held
    finally:
        for process in held:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _sockets(processes: list[psutil.Process]) -> set[str]:
    addresses = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            addresses |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    return addresses


def _libraries(processes: list[psutil.Process]) -> set[str]:
    names = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            names |= {Path(each.path).name for each in process.memory_maps()}
    return names


def test_holding_processes_survives_one_that_has_ended() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "pass"]) as ended,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running,
    ):
        processes = [psutil.Process(each.pid) for each in (ended, running)]
        ended.wait()

        with suspended(processes) as held:
            assert held == processes[1:]
            wait_until(lambda: held[0].status() == psutil.STATUS_STOPPED, "the process was held")

        wait_until(lambda: held[0].status() != psutil.STATUS_STOPPED, "the process was resumed")
        running.communicate(b"\n")


def test_a_killed_run_is_resumed_and_holds_every_picture_once(interrupted: Interrupted) -> None:
    rows = pq.read_table(interrupted.output)
    kept = int(interrupted.second.stdout.partition(" before")[0].rpartition(" ")[2])
    count, seconds, rate = map(float, RATE.findall(interrupted.second.stdout)[0])
    assert count + kept == COUNT
    assert rate == pytest.approx(count / seconds, rel=0.05)

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


def test_a_row_holds_the_response_of_the_service(interrupted: Interrupted, server: Server) -> None:
    rows = [row for row in pq.read_table(interrupted.output).to_pylist() if not row["error_code"]]

    for row in rows[:: len(rows) // 12]:
        answer = server.post("/classify?top_k=3", content=(interrupted.folder / row["path"]).read_bytes()).json()
        assert (row["model"], row["version"], row["variant"]) == (answer["model"], answer["version"], answer["variant"])
        assert row["labels"] == [each["label"] for each in answer["predictions"]]
        assert row["indices"] == [each["index"] for each in answer["predictions"]]
        expected = [each["probability"] for each in answer["predictions"]]
        assert row["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_a_finished_output_is_not_changed(interrupted: Interrupted, artifacts: Path) -> None:
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


def test_a_run_that_loses_an_agent_of_ray_says_so(artifacts: Path, interrupted: Interrupted, tmp_path: Path) -> None:
    output = tmp_path / "rows.parquet"
    run = subprocess.Popen(
        command(interrupted.folder, output), cwd=ROOT, env=environment(artifacts), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with run:
        wait_for_a_part(run, output.with_name("rows.parquet.parts"))
        family = psutil.Process(run.pid).children(recursive=True)
        # Held, so that they don't finish before the loss is noticed.
        with suspended(each for each in family if "ray::Worker" in each.name()):
            for each in family:
                if "RuntimeEnvAgent" in each.name():
                    each.kill()
            stdout, stderr = run.communicate(timeout=RAY_SECONDS)

    assert (run.returncode, stdout, stderr.count("\n")) == (2, "", 1), stderr
    assert stderr.endswith("the finished parts are kept, run the same command again to resume\n")
    assert list(output.with_name("rows.parquet.parts").glob("part-*"))
    assert psutil.wait_procs(family, timeout=RAY_SECONDS)[1] == []


def test_a_machine_alone_does_not_wait_for_another_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has lost its node before anything was prepared."""
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.01)
    exceptions = SimpleNamespace(RayError=OSError)
    ray = SimpleNamespace(nodes=lambda: [], remote=lambda work: work, exceptions=exceptions)
    job = Job(
        input="pictures",
        model="mine",
        version="1",
        variant="onnxruntime-fp32",
        top_k=1,
        max_pixels=1,
        max_bytes=1,
        pictures=1,
    )
    plan = Plan(output="rows.parquet", job=job, chunks=[0], prepare=lambda *_: None, attempts=1, alone=True)

    with pytest.raises(HalftoneError, match=r"lost its processes .*: the finished parts are kept, run the same"):
        list(Schedule(ray, plan).run())


def test_ray_ends_with_the_command_that_was_killed(interrupted: Interrupted) -> None:
    """The last test, because Ray's agents try for a minute to report the end."""
    _, alive = psutil.wait_procs(interrupted.family, timeout=90)

    assert alive == []
