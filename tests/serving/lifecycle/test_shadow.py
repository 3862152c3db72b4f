"""Shadow parity: the reference classifies a share of the live pictures in idle time, and detects a wrong variant."""

import asyncio
import json
import re
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.runtime import Pixels
from models.bundle.bundle import Bundle
from serving.lifecycle.shadow import Shadow
from serving.process.idle_work import MOST_WAITING
from serving.settings import Settings
from serving.telemetry.metrics import Metrics
from serving.telemetry.recorder import Recorder
from serving.telemetry.shadow_metrics import ComparisonRecorder
from tests.servers import PHOTOS, QUICK, Server, serve, wait_until
from tests.serving.lifecycle.test_sabotage import damage
from tests.serving.process.test_startup import refused, rewrite_record
from tests.serving.stand_in import StandIn, stand_in_model

MODEL = "efficientnet_lite0"


@pytest.fixture
def copy(artifacts: Path, tmp_path: Path) -> Path:
    shutil.copytree(artifacts, tmp_path / "artifacts")
    return tmp_path / "artifacts"


def photos() -> list[bytes]:
    return [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]


def counts(exposition: str) -> dict[str, int]:
    """Return the number of comparisons by result."""
    found = re.findall(r'^halftone_shadow_total\{.*result="(\w+)".*\} (\S+)$', exposition, re.MULTILINE)
    return {result: int(float(number)) for result, number in found}


def compared(server: Server, number: int) -> dict[str, int]:
    wait_until(lambda: sum(counts(server.get("/metrics").text).values()) >= number, f"{number} comparisons")
    return counts(server.get("/metrics").text)


def send(server: Server, pictures: Sequence[bytes]) -> int:
    """Send pictures in one request; return their number."""
    answer = server.post("/classify_batch", files=[("images", picture) for picture in pictures])
    assert answer.status_code == 200
    return len(pictures)


def test_a_sound_variant_agrees(artifacts: Path, tmp_path: Path) -> None:
    with serve(artifacts, tmp_path / "log", HALFTONE_SHADOW="1", **QUICK) as server:
        number = send(server, photos())
        assert compared(server, number) == {"agree": number - 2, "undecided": 2}


def test_a_wrong_variant_with_a_forged_proof_is_found(copy: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(copy / MODEL)
    damage(bundle, "fp16")
    digest = bundle.manifest.files["model.fp16.onnx"].sha256
    rewrite_record(copy, "onnxruntime-fp16", lambda record: record.update(source_sha256=digest))

    with serve(
        copy, tmp_path / "log", HALFTONE_SHADOW="1", HALFTONE_BATCH="8", HALFTONE_VARIANT="onnxruntime-fp16"
    ) as server:
        number = send(server, photos())
        assert compared(server, number) == {"disagree": number - 2, "undecided": 2}


def test_without_the_setting_there_are_no_metrics_of_it(server: Server) -> None:
    lines = server.get("/metrics").text.splitlines()
    assert [line for line in lines if line.startswith("halftone_shadow")] == []


def test_it_needs_another_proven_fp32_variant(copy: Path) -> None:
    manifest = json.loads((copy / MODEL / "manifest.json").read_text())
    for name in ("parity/onnxruntime-fp32.json", "parity/openvino-fp32.json"):
        manifest["files"].pop(name, None)
    (copy / MODEL / "manifest.json").write_text(json.dumps(manifest))

    assert "HALFTONE_SHADOW needs a proven FP32 variant" in refused(copy, HALFTONE_SHADOW="0.5")


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan"])
def test_a_share_is_from_0_to_1(share: str) -> None:
    with pytest.raises(Exception, match="HALFTONE_SHADOW must be from 0 to 1"):
        Settings.from_environment({"HALFTONE_SHADOW": share})


def test_it_runs_only_while_idle_and_drops_what_has_no_room() -> None:
    idle = threading.Event()
    reference, metrics = StandIn(), Metrics()
    recorder = ComparisonRecorder(metrics, "m", "v", min_agreement=0.99)
    shadow = Shadow(reference, share=1, idle=idle.is_set, temperature=1.0, recorder=recorder)
    picture = np.zeros((224, 224, 3), np.uint8)
    logits = np.eye(1, 1000, dtype=np.float32)

    for _ in range(MOST_WAITING + 5):
        shadow.offer([picture], logits)

    assert not reference.entered.acquire(timeout=0.1)
    idle.set()
    for _ in range(MOST_WAITING):
        assert reference.entered.acquire(timeout=30)
    shadow.close()
    assert counts(metrics.exposition().decode())["dropped"] == 5


def test_logits_that_are_not_finite_disagree_and_the_thread_survives() -> None:
    metrics = Metrics()
    recorder = ComparisonRecorder(metrics, "m", "v", min_agreement=0.99)
    shadow = Shadow(StandIn(), share=1, idle=lambda: True, temperature=1.0, recorder=recorder)
    picture, nothing = np.zeros((224, 224, 3), np.uint8), np.full((1, 1000), np.nan, np.float32)

    for number in range(1, 4):
        shadow.offer([picture], nothing)
        wait_until(lambda number=number: sum(counts(metrics.exposition().decode()).values()) == number, "compared")  # type: ignore[misc]

    shadow.offer([picture], np.eye(1, 1000, dtype=np.float32))
    wait_until(lambda: counts(metrics.exposition().decode()).get("agree") == 1, "valid logits were compared")
    shadow.close()
    assert counts(metrics.exposition().decode()) == {"agree": 1, "disagree": 3}


class Fixed(StandIn):
    """Reference that gives class 0 and class 1 these logits, and all others none."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.pair = first, second

    def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
        logits = np.full((len(pixels), self.classes), -99, np.float32)
        logits[:, :2] = self.pair
        return logits


@pytest.mark.parametrize(
    ("pair", "temperature", "result"),
    [
        # Probabilities of 0.53 and 0.47, then 0.52 and 0.48.
        ((0.12, 0.0), 1.0, "agree"),
        ((0.0, 0.12), 1.0, "disagree"),
        ((0.08, 0.0), 1.0, "undecided"),
        ((0.0, 0.08), 1.0, "undecided"),
        # The temperature decides, as in the proof.
        ((0.12, 0.0), 2.0, "undecided"),
        ((0.08, 0.0), 0.5, "agree"),
    ],
)
def test_pictures_on_which_the_reference_is_undecided_count_apart(
    pair: tuple[float, float], temperature: float, result: str
) -> None:
    metrics = Metrics()
    recorder = ComparisonRecorder(metrics, "m", "v", min_agreement=0.99)
    shadow = Shadow(Fixed(*pair), share=1, idle=lambda: True, temperature=temperature, recorder=recorder)

    shadow.offer([np.zeros((224, 224, 3), np.uint8)], np.eye(1, 1000, dtype=np.float32))
    wait_until(lambda: bool(counts(metrics.exposition().decode())), "a comparison")
    shadow.close()

    assert counts(metrics.exposition().decode()) == {result: 1}


@pytest.mark.parametrize(
    ("precision", "limit"), [("fp32", "0.99"), ("fp16", "0.99"), ("bf16", "0.98"), ("int8", "0.96")]
)
def test_the_limit_of_the_alarm_is_that_of_the_served_precision_s_gate(
    artifacts: Path, precision: str, limit: str
) -> None:
    served, recorder = StandIn(), Recorder()
    served.precision = precision
    model = stand_in_model(artifacts, "a", served, recorder=recorder, reference=StandIn())
    assert recorder.metrics

    model.announce()
    shown = re.findall(
        r"^halftone_shadow_min_agreement\{.*\} (\S+)$", recorder.metrics.exposition().decode(), re.MULTILINE
    )
    model.withdraw()
    model.close()

    assert shown == [limit]
    assert "halftone_shadow_min_agreement{" not in recorder.metrics.exposition().decode()


def test_waiting_samples_are_dropped_when_the_model_is_replaced() -> None:
    idle = threading.Event()
    reference = StandIn()
    recorder = ComparisonRecorder(Metrics(), "m", "v", min_agreement=0.99)
    shadow = Shadow(reference, share=1, idle=idle.is_set, temperature=1.0, recorder=recorder)
    for _ in range(10):
        shadow.offer([np.zeros((224, 224, 3), np.uint8)], np.eye(1, 1000, dtype=np.float32))

    shadow.drop()
    idle.set()

    assert not reference.entered.acquire(timeout=0.2)
    shadow.close()


def test_a_service_is_idle_if_no_model_has_pending_items(artifacts: Path) -> None:
    recorder = Recorder(metrics=False)
    busy = stand_in_model(artifacts, "a", StandIn(held=True), recorder=recorder)
    other = stand_in_model(artifacts, "b", StandIn(), recorder=recorder)
    assert recorder.idle()
    busy.announce()
    other.announce()
    assert recorder.idle()

    async def submit() -> None:
        running = asyncio.ensure_future(busy.logits_of_pixels(np.zeros((1, 224, 224, 3), np.uint8), seconds=30))
        await asyncio.sleep(0.05)
        assert not recorder.idle()
        busy.runtime.held.set()  # type: ignore[attr-defined]
        await running

    asyncio.run(submit())
    assert recorder.idle()
    for model in (busy, other):
        model.close()
