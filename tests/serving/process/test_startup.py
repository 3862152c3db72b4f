"""Start of the service: an unproven bundle or a wrong setting is refused in one line that names the fix."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from models.bundle.bundle import Bundle
from serving.api.app import Api
from serving.settings import Settings
from tests.servers import PHOTOS, QUICK, ROOT, environment, serve, wait_until
from tests.serving.process.starts import ended, refusal, refused

MODEL = "efficientnet_lite0"


@pytest.fixture
def copy(artifacts: Path, tmp_path: Path) -> Path:
    """Return a folder of bundles with a copy of the default one, to be damaged."""
    shutil.copytree(artifacts, tmp_path / "artifacts")
    return tmp_path / "artifacts"


def rewrite_record(folder: Path, variant: str, change: Callable[[dict[str, object]], object]) -> None:
    """Change a parity record and its hash in the manifest, as its author could."""
    bundle = Bundle.open(folder / MODEL)
    name = f"parity/{variant}.json"
    record = json.loads(bundle.read(name))
    change(record)
    old = bundle.manifest.files[name]
    bundle.write(name, json.dumps(record).encode(), made_by=old.made_by, made_from=list(old.made_from))


def variants(folder: Path) -> list[str]:
    return [path.stem for path in (folder / MODEL / "parity").glob("*.json")]


def test_no_bundle(tmp_path: Path) -> None:
    assert f"python -m export --model {MODEL}" in refused(tmp_path)


def test_a_model_that_is_no_name(artifacts: Path) -> None:
    assert "not a model's name" in refusal(artifacts, HALFTONE_MODEL="../etc")


@pytest.mark.parametrize("name", ["HALFTONE_MODEL", "HALFTONE_ARTIFACTS", "HALFTONE_SETTINGS"])
def test_a_name_that_is_too_long_for_the_file_system(artifacts: Path, name: str) -> None:
    assert len(refused(artifacts, **{name: "a" * 65_000})) < 500


def test_one_of_several_models_is_missing(artifacts: Path) -> None:
    line = refusal(artifacts, HALFTONE_MODEL="efficientnet_lite0, second")

    assert "second" in line


def test_no_variant_is_proven(copy: Path) -> None:
    for variant in variants(copy):
        rewrite_record(copy, variant, lambda record: record.update(verdict="FAILED", reasons=["agreement 0.1 is low"]))

    line = refusal(copy)

    assert "no proven variant" in line
    assert "agreement 0.1 is low" in line
    assert "python -m export" in line


def test_the_variant_asked_for_failed_its_gate(copy: Path) -> None:
    rewrite_record(
        copy, "onnxruntime-fp32", lambda record: record.update(verdict="FAILED", reasons=["12 answers hold NaN"])
    )

    assert "12 answers hold NaN" in refusal(copy, HALFTONE_VARIANT="onnxruntime-fp32")


def test_the_variant_asked_for_has_no_record(copy: Path) -> None:
    manifest = json.loads((copy / MODEL / "manifest.json").read_text())
    del manifest["files"]["parity/onnxruntime-fp16.json"]
    (copy / MODEL / "manifest.json").write_text(json.dumps(manifest))

    line = refusal(copy, HALFTONE_VARIANT="onnxruntime-fp16")

    assert "python -m export.parity --model efficientnet_lite0 --variant onnxruntime-fp16" in line


def test_a_record_for_another_graph(copy: Path) -> None:
    rewrite_record(copy, "openvino-fp32", lambda record: record.update(source_sha256="0" * 64))

    assert "other files" in refusal(copy, HALFTONE_VARIANT="openvino-fp32")


def test_a_tampered_record(copy: Path) -> None:
    with (copy / MODEL / "parity" / "onnxruntime-fp32.json").open("a") as file:
        file.write(" ")

    assert "SHA-256 mismatch" in refusal(copy, HALFTONE_VARIANT="onnxruntime-fp32")


def test_intact_variants_are_served_and_the_rest_is_named(copy: Path) -> None:
    (copy / MODEL).rename(copy / "mine")
    for name in ("parity/openvino-fp32.json", "model.fp16.onnx", "speed.json"):
        with (copy / "mine" / name).open("a") as file:
            file.write(" ")

    with serve(copy, copy / "log", HALFTONE_MODEL="mine", HALFTONE_BATCH="1", HALFTONE_THREADS="1") as server:
        answer = server.post("/classify", content=(PHOTOS / "cat.jpg").read_bytes())

    assert answer.json()["variant"] in ("onnxruntime-fp32", "openvino-bf16")
    left_out = [line for line in (copy / "log").read_text().splitlines() if "is served without" in line]
    assert len(left_out) == 1
    assert "mine is served without openvino-fp32" in left_out[0]
    assert left_out[0].endswith("repair them with `python -m export --model mine`")


def test_a_folder_that_is_a_link_to_elsewhere(copy: Path) -> None:
    (copy / MODEL).rename(copy.parent / "elsewhere")
    (copy / MODEL).symlink_to(copy.parent / "elsewhere")

    line = refused(copy)

    assert f"{MODEL} is a symbolic link that leads out of the folder of bundles: replace it with a copy, or set" in line


def test_an_unknown_variant(artifacts: Path) -> None:
    assert "there is no variant openvino-fp64" in refusal(artifacts, HALFTONE_VARIANT="openvino-fp64")


def test_random_weights(copy: Path) -> None:
    manifest = json.loads((copy / MODEL / "manifest.json").read_text())
    (copy / MODEL / "manifest.json").write_text(json.dumps(manifest | {"trained": False}))

    assert "HALFTONE_ALLOW_UNTRAINED=1" in refusal(copy)


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("HALFTONE_QUEUE", "many", "whole number"),
        ("HALFTONE_QUEUE", "0", "at least 1"),
        ("HALFTONE_DEADLINE", "nan", "positive"),
        ("HALFTONE_BATCH", "-1", "0 or more"),
        ("HALFTONE_MODEL", "a,,b", "commas"),
        ("HALFTONE_MODEL", "a,b,a", "different names"),
        ("HALFTONE_ALLOW_UNTRAINED", "perhaps", "1 or 0"),
    ],
)
def test_wrong_settings(artifacts: Path, setting: str, value: str, word: str) -> None:
    assert word in refusal(artifacts, **{setting: value})


def test_a_setting_that_does_not_exist(artifacts: Path) -> None:
    assert "did you mean HALFTONE_MODEL?" in refused(artifacts, HALFTONE_MODLE="x")


def test_a_tampered_graph_is_found_by_the_worker_and_stops_the_server(copy: Path, tmp_path: Path) -> None:
    for graph in ("model.fp32.onnx", "model.fp16.onnx"):
        data = bytearray((copy / MODEL / graph).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / MODEL / graph).write_bytes(data)

    result = ended(copy)

    assert result.returncode == 2
    assert "SHA-256 mismatch" in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_the_fastest_proven_variant_is_taken(copy: Path, tmp_path: Path) -> None:
    speeds = json.loads((copy / MODEL / "speed.json").read_text())["variants"]
    fastest, second = sorted(speeds, key=lambda variant: -speeds[variant]["images_per_second"])[:2]
    rewrite_record(copy, fastest, lambda record: record.update(verdict="FAILED", reasons=["for this test"]))

    with serve(copy, tmp_path / "log", HALFTONE_BATCH="8") as server:
        answer = server.post("/classify", content=(PHOTOS / "cat.jpg").read_bytes()).json()

    assert answer["variant"] == second


def test_another_machine_measures_again(copy: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(copy / MODEL)
    # Another test may have measured the bundle that this is a copy of.
    (copy / MODEL / "measured.json").unlink(missing_ok=True)
    table = json.loads(bundle.read("speed.json"))
    table["host"]["cpu"] = "another processor"
    for variant, speed in table["variants"].items():
        speed["images_per_second"] = 1e9 if variant == "onnxruntime-fp16" else 1.0
    bundle.write("speed.json", json.dumps(table).encode(), made_by="test")

    with serve(copy, tmp_path / "log", HALFTONE_BATCH="8") as server:
        assert "measuring 4 variants" in server.log.read_text() or "measuring 3 variants" in server.log.read_text()
        assert not server.get("/readyz").json()["refined"]
        wait_until((copy / MODEL / "measured.json").exists, "the measurements were kept")
        wait_until(lambda: server.get("/readyz").json()["refined"], "what was measured is used")

    with serve(copy, tmp_path / "log", HALFTONE_BATCH="8") as server:
        assert "measuring" not in server.log.read_text()


def test_a_chosen_variant_is_served(artifacts: Path, tmp_path: Path) -> None:
    with serve(artifacts, tmp_path / "log", **QUICK) as server:
        assert server.get("/readyz").json()["variant"] == "onnxruntime-fp32"


def test_before_the_model_is_loaded_only_the_process_is_alive() -> None:
    async def ask(method: str, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=Api(Settings()))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://loading") as client:
            return await client.request(method, path, content=b"a picture" if method == "POST" else None)

    assert asyncio.run(ask("GET", "/livez")).status_code == 200
    for method, path in (("GET", "/readyz"), ("GET", "/models"), ("POST", "/classify"), ("POST", "/classify_batch")):
        response = asyncio.run(ask(method, path))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert int(response.headers["retry-after"]) >= 1


def test_sigterm_ends_the_server_with_exit_code_0(artifacts: Path, tmp_path: Path) -> None:
    with serve(artifacts, tmp_path / "log", **QUICK) as server:
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0


def test_reload_has_a_process_of_its_own(artifacts: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "bentoml"), "serve", "--reload", "--host", "127.0.0.1"]

    with serve(artifacts, tmp_path / "log", [*command, "--port", "{port}"], **QUICK) as server:
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
        assert "Traceback" not in server.log.read_text()


MAKE_SERVE = ["make", "--no-print-directory", "serve", "PORT={port}", "EXPORT_FLAGS=--no-int8"]


def test_make_serve_needs_nothing_else(artifacts: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()

    # Not even a home that can be written.
    variables = {"HOME": str(home), "BENTOML_HOME": "", "PWD": str(ROOT), **QUICK}
    with serve(artifacts, tmp_path / "log", MAKE_SERVE, **variables) as server:
        line = f"curl -F image=@export/photos/cat.jpg {server.url}/classify"
        wait_until(lambda: line in server.log.read_text(), "a curl line was printed")
        answer = server.post("/classify", files={"image": (PHOTOS / "cat.jpg").read_bytes()}).json()
        assert answer["predictions"][0]["label"] in {"tabby", "tiger cat", "Egyptian cat"}


def test_make_serve_names_the_folder_that_bentoml_can_not_write_to(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = environment(artifacts, BENTOML_HOME=str(tmp_path / "file" / "bentoml"))

    result = subprocess.run(MAKE_SERVE, cwd=ROOT, env=values, capture_output=True, text=True, check=False)

    assert result.returncode == 2
    assert "error: can't write to" in result.stderr
    assert "set BENTOML_HOME to a folder that can be written" in result.stderr
