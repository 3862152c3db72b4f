"""`python -m loadtest.compare`: measurements of small test servers, and the command line."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from loadtest.client import closed_loop, wrk
from loadtest.client.encoding import Wire, request
from loadtest.client.load import Cell, Load
from loadtest.client.pictures import BYTES, SIZE, prepare, prepared
from loadtest.compare.rounds import ComparisonPlan, Generator, PeerResult, measure
from loadtest.peers.shared import Model
from loadtest.reporting.cli import CompareError
from loadtest.servers.catalogue import NOOP_PEERS, chosen, ours
from loadtest.servers.peer import INDEX, Peer, running
from loadtest.servers.process import free_port
from tests.commands import run
from tests.samples import oriented
from tests.servers import PHOTOS, QUICK

STUB = str(Path(__file__).parent / "stub_server.py")
GENERATORS = [closed_loop.run, *([wrk.run] if wrk.installed() else [])]


def stub(*flags: str, wire: Wire = Wire.RAW) -> Peer:
    command = ("{python}", STUB, "{port}", *flags)
    return Peer(name="stub", title="Stub", engine="none", command=command, wire=wire)


PICTURES = {"a.jpg": b"first", "b.jpg": b"second", "unlabelled.jpg": b"third"}


def measured(
    peers: list[Peer],
    generate: Generator = closed_loop.run,
    rounds: int = 1,
    together: bool = False,
    pictures: dict[str, bytes] = PICTURES,
    label: int = 7,
) -> list[PeerResult]:
    plan = ComparisonPlan(
        peers=peers,
        pictures=pictures,
        labels={name: label for name in pictures if name != "unlabelled.jpg"},
        clients=(2,),
        seconds=1.0,
        rounds=rounds,
        variant="onnxruntime-fp32",
        generate=generate,
        interpreter=lambda _: Path(sys.executable),
        say=lambda _: None,
        together=together,
    )
    return measure(plan)


def only_cell(result: PeerResult) -> Cell:
    assert result.reason == ""
    return result.cells[0][2]


@pytest.mark.parametrize("generate", GENERATORS)
def test_rate_latency_and_memory_are_measured(generate: Generator) -> None:
    (result,) = measured([stub()], generate)

    cell = only_cell(result)
    assert cell.requests > 0
    assert (cell.errors, cell.wrong) == (0, 0)
    assert 0 < cell.p50_ms <= cell.p99_ms
    assert result.cold_starts[0] > 0
    assert result.peaks_mib[0] > 1


@pytest.mark.parametrize("generate", GENERATORS)
def test_wrong_predictions_and_errors_are_counted(generate: Generator) -> None:
    (result,) = measured([stub("--wrong", "--broken")], generate)

    cell = only_cell(result)
    assert cell.wrong == cell.requests > 0
    # Two connections, each at most two responses apart, and the requests in flight at the end.
    assert cell.errors == pytest.approx(cell.requests, abs=6)
    assert cell.missed == cell.seen == {0, 1}


def test_a_peer_that_ends_keeps_its_row_with_the_reason_and_the_others_continue() -> None:
    dead = Peer(name="dead", title="Dead", engine="none", command=("{python}", "-c", "raise SystemExit('no luck')"))
    missing = Peer(name="missing", title="Missing", engine="none", command=("/no/such/server",))

    results = measured([dead, missing, stub()], rounds=2)

    assert "ended with 1" in results[0].reason
    assert "no luck" in results[0].reason
    assert "not started" in results[1].reason
    assert [result.cells for result in results[:2]] == [[], []]
    assert len(results[2].cells) == 2


def test_servers_that_run_at_once_alternate_and_those_that_fail_are_left_out() -> None:
    dead = Peer(name="dead", title="Dead", engine="none", command=("{python}", "-c", "raise SystemExit('no luck')"))

    results = measured([stub(), dead, stub()], rounds=2, together=True)

    assert [len(result.cells) for result in results] == [2, 0, 2]
    assert [[cell.errors for cell in cells.values()] for cells in results[0].cells] == [[0], [0]]
    assert "no luck" in results[1].reason
    assert results[2].peaks_mib[0] > 1


def test_a_missing_server_counts_as_errors() -> None:
    load = Load(port=free_port(), requests=[b"x"], expected=[0], answer=INDEX, clients=2, seconds=0.5)

    cell = closed_loop.run(load)

    assert cell.requests == 0
    assert cell.errors > 0


@pytest.mark.parametrize("wire", [Wire.IMAGE_FIELD, Wire.REQUEST_FIELD])
def test_a_form_is_what_python_multipart_reads(wire: Wire) -> None:
    from serving.http.multipart import parse_form

    head, _, body = request(wire, "/", b"\xff\xd8picture\r\n", 1).partition(b"\r\n\r\n")
    content_type = head.partition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode()

    (part,) = parse_form(content_type, body)

    assert (part.name, part.is_file, part.data) == (wire.value, True, b"\xff\xd8picture\r\n")


def test_prepared_photos_have_one_size_in_pixels_and_bytes(tmp_path: Path) -> None:
    prepare(PHOTOS, tmp_path, 3)

    files = sorted(tmp_path.iterdir())
    assert len(files) == 3 * len(list(PHOTOS.glob("*.jpg")))
    assert len({file.read_bytes() for file in files}) == len(files)
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size) == ("JPEG", SIZE)
    weights = sorted(file.stat().st_size for file in files)
    assert weights[len(files) // 2] == pytest.approx(BYTES, rel=0.1)


def test_larger_photos_have_as_many_bytes_for_each_pixel(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(PHOTOS / "coffee.jpg", tmp_path / "photos")

    (picture,) = prepared(tmp_path / "photos", 1, megapixels=1.0).values()

    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (1155, 866)
    assert len(picture) == pytest.approx(BYTES * 1.0e6 / (SIZE[0] * SIZE[1]), rel=0.2)


@pytest.mark.parametrize("decoder", ["opencv", "pillow"])
def test_a_peer_decodes_with_another_library(artifacts: Path, monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))
    with Image.open(PHOTOS / "coffee.jpg") as photo:
        picture = oriented(photo, "JPEG", 6, quality=95)
    ours = Model().pixels(picture)
    monkeypatch.setenv("PEER_DECODER", decoder)

    theirs = Model().pixels(picture)

    assert theirs.shape == ours.shape
    assert np.abs(theirs.astype(int) - ours).mean() < 3


def compare(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("loadtest.compare", *arguments, env=os.environ | environment)


OURS = {peer.name: peer for peer in (*NOOP_PEERS, *chosen("halftone-v2"))}


@pytest.mark.parametrize("name", ["halftone-noop", "halftone-noop-full", "halftone-v2"])
def test_every_form_of_our_service_can_be_measured(artifacts: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in {"HALFTONE_ARTIFACTS": str(artifacts), **QUICK}.items():
        monkeypatch.setenv(variable, value)
    pictures = {"cat.jpg": (PHOTOS / "cat.jpg").read_bytes()}

    (result,) = measured([OURS[name]], pictures=pictures, label=282 if name == "halftone-v2" else 0)

    cell = only_cell(result)
    assert cell.requests > 0
    assert (cell.errors, cell.wrong) == (0, 0)


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_measurement_starts_when_all_workers_serve(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_file: bool
) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))
    settings = {"HALFTONE_WORKERS": "2", "HALFTONE_THREADS": "1", **QUICK}
    # As `loadtest.tune` writes it.
    file = tmp_path / "tuned.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    peer = ours(HALFTONE_SETTINGS=str(file)) if in_a_file else ours(**settings)

    with running(peer, Path(sys.executable), (PHOTOS / "cat.jpg").read_bytes(), "") as server:
        metrics = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text

    info = [line for line in metrics.splitlines() if line.startswith("halftone_model_info{")]
    assert sorted(re.findall(r'worker="(\w+)"', " ".join(info))) == ["1", "2"]
    assert server.cold_start > 0


def test_one_command_measures_and_reports(artifacts: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "peers"
    (blocked / "fastapi").mkdir(parents=True)

    result = compare(
        *(
            "--peers",
            "halftone,fastapi,bentoml,limit",
            "--clients",
            "2",
            "--seconds",
            "1",
            "--rounds",
            "1",
            "--views",
            "2",
        ),
        *("--peers-folder", str(blocked), "--output", str(tmp_path / "report")),
        HALFTONE_ARTIFACTS=str(artifacts),
        **QUICK,
    )

    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["halftone", "fastapi", "bentoml", "limit"]
    assert "is no virtual environment" in rows["fastapi"]["reason"]
    for name in ("halftone", "bentoml", "limit"):
        (level,) = rows[name]["levels"]
        assert level["requests"] > 0, name
        assert level["errors"] == 0, name
        assert level["ratios"]["× limit"] > 0
        assert (level["cpu_ms"] is None) == (name == "limit")
    assert 0 < rows["halftone"]["share_mib"]["median"] < rows["halftone"]["peak_mib"]["median"]
    assert "ahead of us in" in str(report["behind"])
    assert rows["bentoml"]["levels"][0]["wrong"] == 0
    goals = {goal["text"]: goal for goal in report["goals"]}
    assert goals["halftone errors, at most 0"]["reached"]
    assert rows["halftone"]["ours"]
    assert 0 < rows["halftone"]["same"] <= rows["halftone"]["pictures"] <= 16
    assert rows["halftone"]["cold_start_s"]["median"] > 0
    assert report["hardware"]["cores"] >= 1
    assert report["versions"]["here"]["bentoml"]
    markdown = (tmp_path / "report.md").read_text()
    assert "not measured: " in markdown
    assert "against a server that does nothing it makes" in markdown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "nginx"], "there is no peer 'nginx'"),
        (["--peers", "limit,limit"], "named twice"),
        (["--clients", "0"], "--clients must be 1 to 256"),
        (["--clients", "2", "2"], "given twice"),
        (["--seconds", "nan"], "--seconds must be 0.5 to 60"),
        (["--rounds", "51"], "--rounds must be 1 to 50"),
        (["--noop", "--batching"], "--noop and --batching are 2 runs: give one of them"),
        (["--pixels", "0.01"], "--pixels must be 0.1 to 48 megapixels"),
        (["--pixels", "48", "--views", "100"], "9.6 GB in memory: give --views 10"),
        (["--images", "/no/such"], "there is no JPEG, PNG or WebP picture in /no/such"),
        (["--labels", "/no/such.json"], "--labels /no/such.json"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: list[str], message: str) -> None:
    result = compare("--views", "1", *arguments)

    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_a_decided_picture_nothing_is_measured() -> None:
    with pytest.raises(CompareError, match="no decided picture: none of 1 pictures"):
        ComparisonPlan(
            peers=[],
            pictures={"a.jpg": b""},
            labels={},
            clients=(1,),
            seconds=1.0,
            rounds=1,
            variant="",
            generate=closed_loop.run,
            interpreter=lambda _: Path(sys.executable),
            say=lambda _: None,
        )
