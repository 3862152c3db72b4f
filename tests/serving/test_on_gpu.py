"""The service on a real GPU: from the proof to responses over HTTP, also during hot swaps."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.servers import PHOTOS, ROOT, Server, serve

pytestmark = pytest.mark.gpu

MODEL, VARIANT = "efficientnet_lite0", "onnxruntime_cuda-fp16"
BEARER = {"Authorization": "Bearer a-token-of-the-tests-only"}
PICTURES = {path.name: path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))}
CLIENTS, SWAPS = 16, 4


@pytest.fixture(scope="module")
def on_gpu(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gpu")
    shutil.copytree(artifacts / MODEL, folder / MODEL)
    command = [sys.executable, "-m", "export.parity", "--model", MODEL, "--variant", VARIANT]
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(folder)}
    proved = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert proved.returncode == 0, proved.stdout + proved.stderr
    token = BEARER["Authorization"].split()[1]
    with serve(folder, folder / "log", HALFTONE_VARIANT=VARIANT, HALFTONE_ADMIN_TOKEN=token) as running:
        yield running


def classify(server: Server, name: str) -> tuple[str, float]:
    """Return the best class of a photograph and its probability."""
    response = server.post("/classify", content=PICTURES[name])
    assert response.status_code == 200, response.text
    best = response.json()["predictions"][0]
    return best["label"], best["probability"]


def test_photographs_get_the_classes_of_the_cpu(on_gpu: Server, server: Server) -> None:
    assert on_gpu.get("/models").json()["models"][0]["variant"] == VARIANT
    for name in PICTURES:
        (label, probability), (expected, usual) = classify(on_gpu, name), classify(server, name)
        assert (label, probability) == (expected, pytest.approx(usual, abs=0.1))


def test_a_batch_gets_the_classes_of_its_pictures(on_gpu: Server) -> None:
    files = [("images", data) for data in PICTURES.values()] * 5

    results = on_gpu.post("/classify_batch", files=files).json()["results"]

    expected = [classify(on_gpu, name) for name in PICTURES] * 5
    best = [result["predictions"][0] for result in results]
    assert [each["label"] for each in best] == [label for label, _ in expected]
    assert [each["probability"] for each in best] == pytest.approx([each for _, each in expected], abs=0.02)


def test_classes_stay_the_same_while_the_model_is_loaded_again_and_freed(on_gpu: Server) -> None:
    expected = {name: classify(on_gpu, name)[0] for name in PICTURES}
    stop = threading.Event()

    def send_until_stopped(client: int) -> list[bool]:
        names, right = sorted(PICTURES), []
        while not stop.is_set():
            name = names[(client + len(right)) % len(names)]
            right.append(classify(on_gpu, name)[0] == expected[name])
        return right

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(send_until_stopped, client) for client in range(CLIENTS)]
        try:
            statuses = [on_gpu.post(f"/admin/models/{MODEL}/load", headers=BEARER).status_code for _ in range(SWAPS)]
        finally:
            stop.set()
        answers = [each for client in clients for each in client.result()]

    assert statuses == [200] * SWAPS
    assert len(answers) > CLIENTS
    assert all(answers)
    assert "not launched as a CUDA graph" not in on_gpu.log.read_text()
