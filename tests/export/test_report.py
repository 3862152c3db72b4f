"""The page about a bundle: what it says, of bundles with everything and with little, and where the service shows it."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from export.report import page
from models.bundle.bundle import Bundle
from serving.api.app import Api
from serving.settings import Settings
from tests.commands import run
from tests.export.trained import trained_bundle
from tests.serving.stand_in import StandIn, stand_in_model

NAME = "efficientnet_lite0"


def test_a_proven_bundle(default: Bundle) -> None:
    text = page(default)

    record = json.loads((default.folder / "parity" / "onnxruntime-fp32.json").read_text())
    for expected in (
        f"version {default.manifest.version}",
        "answers as the FP32 reference does on",
        f"of {record['figures']['decided_images']} clear images.",
        '<span class="badge">passed</span>',
        "40 crops of each of 8 sample photographs",
        record["host"]["cpu"],
        "and 940 more",
        default.manifest.files["weights.safetensors"].sha256[:12],
        f"HALFTONE_MODEL={NAME} bentoml serve",
    ):
        assert expected in text
    speeds = json.loads((default.folder / "speed.json").read_text())["variants"]
    places = [
        text.index(f"<td>{variant}</td>")
        for variant in sorted(speeds, key=lambda each: -speeds[each]["images_per_second"])
    ]
    assert places == sorted(places)
    assert "Training</h2>" not in text
    assert "http" not in text


def test_a_failed_proof_is_last_and_says_why(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts / NAME, tmp_path / NAME)
    bundle = Bundle.open(tmp_path / NAME)
    name = "parity/openvino-bf16.json"
    record = json.loads(bundle.read(name)) | {"verdict": "FAILED", "reasons": ["agreement <b>too</b> low"]}
    bundle.write(name, json.dumps(record).encode(), made_by="`a test`")

    text = page(bundle)

    assert '<span class="badge bad">failed</span>' in text
    assert "openvino-bf16: agreement &lt;b&gt;too&lt;/b&gt; low" in text
    assert text.index("<td>openvino-fp32</td>") < text.index("<td>openvino-bf16</td>")


def test_a_trained_bundle_without_proofs(tmp_path: Path) -> None:
    text = page(trained_bundle(tmp_path / "mine"), training_report="index.html")

    for expected in ("猫", "a &#34;quoted&#34; dog", "There is none yet.", "config.epochs", 'href="index.html"'):
        assert expected in text
    assert "python -m export --model mine" in text


def test_the_accuracy_is_that_of_the_test_part_if_there_is_one(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path / "mine")
    metrics = {"val_top1": 0.91, "test_top1": 0.87, "test_top1_interval": [0.84, 0.9]}

    def shown(figures: dict[str, float | list[float]]) -> str:
        training = {"training": {"config": {}, "metrics": figures}}
        return page(Bundle(bundle.folder, replace(bundle.manifest, **training)))  # type: ignore[arg-type]

    assert "test accuracy" in shown(metrics)
    assert "84.0 % to 90.0 %" in shown(metrics)
    assert "validation accuracy" in shown({"val_top1": 0.91})


def test_the_command_writes_it_and_the_service_shows_it_if_allowed(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(artifacts / NAME, tmp_path / NAME)
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    assert get(artifacts, f"/models/{NAME}", reports=False).status_code == 404
    missing = get(artifacts, f"/models/{NAME}", reports=True)
    assert (missing.status_code, "python -m export.report" in missing.text) == (404, True)

    result = run("export.report", "--model", NAME)

    assert result.returncode == 0, result.stderr
    written = tmp_path / NAME / "report" / "bundle.html"
    assert result.stdout == f"wrote {written}\n"
    shown = get(artifacts, f"/models/{NAME}", reports=True)
    assert (shown.status_code, shown.text) == (200, written.read_text())
    assert "script-src" not in shown.headers["content-security-policy"]
    # Its links are relative to the address that both of these lead to.
    assert shown.url.path == get(artifacts, f"/models/{NAME}/", reports=True).url.path == f"/models/{NAME}/bundle.html"
    training = get(artifacts, f"/models/{NAME}/index.html", reports=True)
    assert (training.status_code, "only training writes it" in training.text) == (404, True)
    (written.parent / "index.html").write_text("<p>curves")
    assert get(artifacts, f"/models/{NAME}/index.html", reports=True).text == "<p>curves"
    assert get(artifacts, f"/models/{NAME}/manifest.json", reports=True).status_code == 404
    assert get(artifacts, "/models/other", reports=True).json()["error"]["code"] == "model_not_found"


def get(artifacts: Path, path: str, *, reports: bool) -> httpx.Response:
    """Return the response of a service in this process."""
    api = Api(Settings(model=NAME, reports=reports))
    api.models.publish(stand_in_model(artifacts, NAME, StandIn()))

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=api)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://here", follow_redirects=True) as client:
            return await client.get(path)

    try:
        return asyncio.run(send())
    finally:
        api.close()
