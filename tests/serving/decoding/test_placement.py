"""Placement of decoding: by the settings and by measurement, in a real service, and in its benchmark."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.common.errors import HalftoneError
from models.preprocess import transform
from serving.decoding.placement import lock_share, place_decoding
from serving.decoding.pool import Decoders
from serving.settings import Settings
from tests.commands import run
from tests.servers import PHOTOS, ROOT, Server, serve
from tests.serving.decoding.processes import CAT, SPEC, gone, pids, program, workers_of

FAST = 10_000.0


@pytest.mark.parametrize(
    ("threads", "rate", "more"),
    [(1, FAST, False), (2, FAST, False), (4, FAST, True), (16, FAST, True), (2, 300.0, False), (8, 1200.0, False)],
)
def test_processes_decode_if_threads_would_wait_for_each_other(threads: int, rate: float, more: bool) -> None:
    assert (lock_share(0.001, threads, rate) > 0.6) == more


def test_settings_decide_where_pictures_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.cores", lambda: 16)
    pool = Decoders(1)
    try:
        assert place_decoding("m", pool, Settings(model="m", threads=16, decoders=0), SPEC, FAST) == transform.load
        assert place_decoding("m", pool, Settings(model="m", threads=1), SPEC, FAST) == transform.load
        assert pids(pool) == []
        assert place_decoding("m", pool, Settings(model="m", threads=16), SPEC, FAST) == pool.load
        assert place_decoding("m", pool, Settings(model="m", threads=1, decoders=1), SPEC, 1.0) == pool.load
        assert len(pids(pool)) == 1
    finally:
        pool.close()


def test_unusable_processes_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            place_decoding("m", pool, Settings(model="m", decoders=2), SPEC, FAST)
        assert place_decoding("m", pool, Settings(model="m", threads=16), SPEC, FAST) == transform.load
        assert pids(pool) == []

    monkeypatch.undo()
    pool = Decoders(1)
    monkeypatch.setattr(sys, "executable", program(tmp_path, f'exec {sys.executable} {tmp_path}/other.py "$@"'))
    with pytest.raises(HalftoneError, match=r"other pixels.*HALFTONE_DECODERS=0"):
        pool.start()
    assert pids(pool) == []


@pytest.fixture(scope="module")
def with_processes(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"HALFTONE_DECODERS": "2", "HALFTONE_MAX_PIXELS": "1000000", "HALFTONE_BATCH": "8"}
    with serve(artifacts, tmp_path_factory.mktemp("decoding") / "log", **settings) as running:
        yield running


def test_the_service_responds_as_without_processes(with_processes: Server, server: Server) -> None:
    for photo in sorted(PHOTOS.glob("*.jpg")):
        for data in (photo.read_bytes(), photo.read_bytes()[:3000]):
            answers = [
                each.post("/classify", content=data, headers={"Content-Type": "image/jpeg"})
                for each in (with_processes, server)
            ]
            assert answers[0].status_code == answers[1].status_code
            if answers[0].status_code == 200:
                assert answers[0].json() == answers[1].json()

    assert len(workers_of(with_processes.process.pid)) == 2


def test_the_service_survives_killed_processes(with_processes: Server) -> None:
    before = workers_of(with_processes.process.pid)
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
def test_the_benchmark_refuses_values_out_of_range(arguments: list[str]) -> None:
    result = run("serving.decoding.benchmark", *arguments)

    assert result.returncode == 2
    assert arguments[0] in result.stderr
    assert "Traceback" not in result.stderr
