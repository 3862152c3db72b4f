"""Model repositories for Triton and OpenVINO Model Server: read by the servers' own formats and runtime."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_UINT8, ModelConfig, ModelInstanceGroup

from export.benchmark import speed
from export.exchange.batches import measured_batches
from export.exchange.ovms_repository import push_ovms
from export.exchange.triton_repository import push_triton
from export.parity.record import ParityRecord, UnprovenError, record_name
from export.trt.profile import Profile
from export.trt.sidecar import Sidecar, plan_name, sidecar_name
from export.variants import load
from models.bundle.bundle import Bundle
from models.bundle.errors import HashMismatchError
from models.common.errors import HalftoneError
from models.preprocess.transform import load as load_picture
from serving.lifecycle.measurements import Conditions, Measurement, keep
from serving.settings import Settings
from tests.export.exchange.conftest import Command
from tests.servers import PHOTOS, ROOT, Server

MODEL = "efficientnet_lite0"
TENSORRT = "tensorrt-fp16"


def triton_config(folder: Path, model: str = MODEL) -> ModelConfig:
    return text_format.Parse((folder / model / "config.pbtxt").read_text(), ModelConfig())


def record_of(bundle: Bundle, variant: str) -> ParityRecord:
    return ParityRecord.from_json(bundle.read(record_name(variant)))


def write_record(bundle: Bundle, record: ParityRecord) -> None:
    bundle.write(record_name(record.variant), record.to_json(), made_by="`python -m export.parity`")


def fail_every(bundle: Bundle, runtime: str) -> None:
    for name in [name for name in bundle.manifest.files if name.startswith(f"parity/{runtime}-")]:
        record = record_of(bundle, Path(name).stem)
        write_record(bundle, replace(record, verdict="FAILED", reasons=["mean KL 3 is above 0.01"]))


@pytest.fixture
def default(artifacts: Path) -> Bundle:
    """The bundle that `server` serves, not to be changed."""
    return Bundle.open(artifacts / "efficientnet_lite0")


def test_triton_reads_its_configuration(default: Bundle, tmp_path: Path) -> None:
    (variant,) = push_triton(default, tmp_path / "models")
    config, record = triton_config(tmp_path / "models"), record_of(default, variant)

    assert (config.name, config.backend, config.max_batch_size) == (MODEL, "onnxruntime", 64)
    (pixels,), (logits,), (group,) = config.input, config.output, config.instance_group
    assert (pixels.name, pixels.data_type, list(pixels.dims)) == ("pixels", TYPE_UINT8, [224, 224, 3])
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", TYPE_FP32, [1000])
    assert group.kind == ModelInstanceGroup.KIND_CPU
    model = tmp_path / "models" / MODEL
    assert (model / "1" / "model.onnx").read_bytes() == default.read(record.source)
    assert (model / logits.label_filename).read_text().splitlines() == list(default.manifest.labels)
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == [MODEL]


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        (((1, 0.010), (2, 0.016), (4, 0.028), (8, 0.060)), (2, 4)),
        (((1, 0.010), (2, 0.020)), ()),
        ((), None),
    ],
)
def test_batches_are_those_that_serving_measured(
    copied: Bundle, tmp_path: Path, seconds: tuple[tuple[int, float], ...], sizes: tuple[int, ...] | None
) -> None:
    variant = "onnxruntime-fp32"
    conditions = Conditions.now(copied, variant, Settings())
    keep(copied, [Measurement(conditions=conditions, streams=int(bool(seconds)), seconds=seconds)])
    for other in ("onnxruntime-fp16", "onnxruntime-int8"):
        copied.manifest.files.pop(record_name(other), None)

    assert measured_batches(copied, variant) == sizes
    assert push_triton(copied, tmp_path / "models") == [variant]
    config = triton_config(tmp_path / "models")
    assert config.HasField("dynamic_batching") == (sizes != ())
    assert tuple(config.dynamic_batching.preferred_batch_size) == (sizes or ())


def test_measurements_that_cannot_be_used_are_none(copied: Bundle) -> None:
    for content in ("{}", "[]", "nothing", '{"measurements": [3]}'):
        (copied.folder / "measured.json").write_text(content)

        assert measured_batches(copied, "onnxruntime-fp32") is None


def test_the_plan_is_a_second_model(copied: Bundle, tmp_path: Path) -> None:
    plan = plan_name("tensorrt", "fp16")
    copied.write(plan, b"a plan", made_by="`python -m export.trt`")
    files = copied.manifest.files
    sidecar = Sidecar(
        runtime="tensorrt",
        version="11.2.0",
        precision="fp16",
        compute_capabilities=("9.0",),
        profile=Profile(optimum=16, maximum=32),
        onnx="model.fp16.onnx",
        onnx_sha256=files["model.fp16.onnx"].sha256,
        plan_sha256=files[plan].sha256,
        model_version=copied.manifest.version,
        histogram={},
        build_seconds=1.0,
        size=6,
    )
    copied.write(sidecar_name("tensorrt", "fp16"), sidecar.to_json(), made_by="`python -m export.trt`")
    ran = {"name": "tensorrt", "version": "11.2.0", "executed_as": "fp16 on H200"}
    record = replace(
        record_of(copied, "onnxruntime-fp16"), variant=TENSORRT, source=plan, source_sha256=files[plan].sha256
    )

    write_record(copied, replace(record, runtime=ran, verified_on="graph"))
    assert TENSORRT not in push_triton(copied, tmp_path / "unproven")
    write_record(copied, replace(record, runtime=ran))
    assert TENSORRT in push_triton(copied, tmp_path / "models")

    config = triton_config(tmp_path / "models", f"{MODEL}-tensorrt")
    assert (config.name, config.platform, config.max_batch_size) == (f"{MODEL}-tensorrt", "tensorrt_plan", 32)
    assert list(config.dynamic_batching.preferred_batch_size) == [16]
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    model = tmp_path / "models" / f"{MODEL}-tensorrt"
    assert (model / "1" / "model.plan").read_bytes() == b"a plan"
    assert (model / config.output[0].label_filename).read_text().splitlines() == list(copied.manifest.labels)
    assert "TensorRT 11.2.0 for compute capability 9.0" in (tmp_path / "models" / "README.md").read_text()


def test_openvino_answers_from_its_repository_as_the_proven_variant(default: Bundle, tmp_path: Path) -> None:
    (variant,) = push_ovms(default, tmp_path / "models")
    (served,) = json.loads((tmp_path / "models" / "config.json").read_text())["model_config_list"]
    model = served["config"]
    (graph,) = (tmp_path / "models" / model["base_path"] / "1").iterdir()
    photos = [load_picture(path.read_bytes(), default.manifest.input) for path in sorted(PHOTOS.glob("*.jpg"))]

    compiled = openvino.Core().compile_model(graph, model["target_device"], model["plugin_config"])
    theirs = compiled({"pixels": np.stack(photos)})["logits"]
    ours = load(default, variant, threads=1).run(np.stack(photos))

    assert model["name"] == MODEL
    # bf16 rounds differently in batches of other sizes.
    assert np.abs(theirs - ours).mean() < (0.05 if variant.endswith("bf16") else 1e-4)
    assert theirs.argmax(axis=1).tolist() == ours.argmax(axis=1).tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_arithmetic_is_the_proven_one(copied: Bundle, tmp_path: Path, precision: str) -> None:
    record = replace(record_of(copied, "openvino-fp32"), variant=f"openvino-{precision}")
    for name in ("fp32", "bf16", "int8"):
        copied.manifest.files.pop(record_name(f"openvino-{name}"), None)
    write_record(copied, record)
    for name in {"fp32", "bf16", "int8"} - {precision}:
        copied.manifest.files.pop(record_name(f"openvino-{name}"), None)

    push_ovms(copied, tmp_path / "models")

    (served,) = json.loads((tmp_path / "models" / "config.json").read_text())["model_config_list"]
    assert served["config"]["plugin_config"]["INFERENCE_PRECISION_HINT"] == precision.replace("fp32", "f32")


def test_the_client_prepares_pictures_as_the_service_does(default: Bundle, tmp_path: Path, server: Server) -> None:
    push_triton(default, tmp_path / "models")
    for name in ("coffee.jpg", "rocket.jpg"):
        data = (PHOTOS / name).read_bytes()
        best = server.post("/classify", content=data, headers={"Content-Type": "image/jpeg"}).json()["predictions"][0]

        result = subprocess.run(
            [sys.executable, tmp_path / "models" / "classify.py", PHOTOS / name, server.url.removeprefix("http://")],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

        assert result.returncode == 0, result.stderr
        probability, label = result.stdout.splitlines()[0].split(" ", 1)
        assert label == best["label"]
        assert float(probability) == pytest.approx(best["probability"], abs=0.02)


@pytest.mark.parametrize("push", [push_triton, push_ovms])
def test_the_readme_names_the_proof_and_what_was_not_run(default: Bundle, tmp_path: Path, push) -> None:
    (variant,) = push(default, tmp_path / "models")

    text = (tmp_path / "models" / "README.md").read_text()
    record = record_of(default, variant)
    assert f"`{variant}`: parity PASSED on {record.figures['images']} images" in text
    assert record.runtime["version"] in text
    assert "This folder was not run on" in text
    assert "Resize the short side to 256 pixels, bicubic" in text
    assert "{" not in text.replace("{ }", "")


@pytest.mark.parametrize(("push", "runtime"), [(push_triton, "onnxruntime"), (push_ovms, "openvino")])
def test_only_proven_variants_are_pushed(copied: Bundle, tmp_path: Path, push, runtime: str) -> None:
    fail_every(copied, runtime)

    with pytest.raises(
        UnprovenError, match=rf"no proven variant of {runtime} .*failed its parity gate.*run `python -m"
    ):
        push(copied, tmp_path / "models")

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("push", [push_triton, push_ovms])
def test_damaged_graphs_are_not_pushed(copied: Bundle, tmp_path: Path, push) -> None:
    for name in ("model.fp32.onnx", "model.fp16.onnx"):
        data = bytearray((copied.folder / name).read_bytes())
        data[1000] ^= 1
        (copied.folder / name).write_bytes(data)

    with pytest.raises(HashMismatchError):
        push(copied, tmp_path / "models")

    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("push", [push_triton, push_ovms])
def test_a_folder_that_holds_something_is_left_alone(default: Bundle, tmp_path: Path, push) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(HalftoneError, match="is not empty: remove it, or choose another place with --to"):
        push(default, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_fastest_proven_variant_is_pushed(copied: Bundle, tmp_path: Path) -> None:
    table = speed.SpeedTable.from_json(copied.read(speed.FILE_NAME))
    swift = replace(table.variants["openvino-fp32"], images_per_second=10_000.0)
    speed.save(copied, replace(table, variants=table.variants | {"openvino-fp32": swift}))

    assert push_ovms(copied, tmp_path / "models") == ["openvino-fp32"]


def test_the_command(default: Bundle, home: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(default.folder, home / "mine")

    done = command("export.push", "--model", "mine", "--to", f"triton:{tmp_path}/deep/models")
    again = command("export.push", "--model", "mine", "--to", f"triton:{tmp_path}/deep/models")
    other = command("export.push", "--model", "mine", "--to", f"ovms:{tmp_path}/ovms")
    nowhere = [command("export.push", "--model", "mine", "--to", to) for to in ("triton", "ovms:")]

    assert (done.returncode, done.stderr) == (0, "")
    assert "with onnxruntime-" in done.stdout
    # The name that the user typed, not that of the model that the bundle was copied from.
    assert triton_config(tmp_path / "deep" / "models", "mine").name == "mine"
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert (other.returncode, other.stderr) == (0, "")
    assert (tmp_path / "ovms" / "mine" / "1" / "model.onnx").is_file()
    for each in nowhere:
        assert (each.returncode, each.stdout) == (2, "")
        assert "names no folder: write --to" in each.stderr
