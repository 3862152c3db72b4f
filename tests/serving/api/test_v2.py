"""The Open Inference Protocol of a real server, with NVIDIA's own client."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from google.protobuf.json_format import ParseDict
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.grpc.service_pb2 import ModelStatisticsResponse
from tritonclient.utils import InferenceServerException

from export.variants import load
from models.bundle.bundle import Bundle
from models.common.host import cores
from models.common.statistics import softmax
from models.preprocess.transform import load as load_picture
from tests.servers import PHOTOS, Server

MODEL = "efficientnet_lite0"
FILES = [(PHOTOS / name).read_bytes() for name in ("cat.jpg", "coffee.jpg", "rocket.jpg")]
# bf16 may round differently with another batch size.
CLOSE = {"atol": 0.15, "rtol": 0.05}


@pytest.fixture(scope="module")
def bundle(artifacts: Path) -> Bundle:
    return Bundle.open(artifacts / MODEL)


@pytest.fixture(scope="module")
def pixels(bundle: Bundle) -> np.ndarray:
    return np.stack([load_picture(data, bundle.manifest.input) for data in FILES])


@pytest.fixture(scope="module")
def logits(server: Server, bundle: Bundle, pixels: np.ndarray) -> np.ndarray:
    """Return the logits of the variant that the server uses."""
    variant = server.get("/models").json()["models"][0]["variant"]
    runtime = load(bundle, variant, threads=cores(), streams=cores())
    return np.concatenate([runtime.run(each[np.newaxis]) for each in pixels])


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def pixel_input(pixels: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    return tensor.set_data_from_numpy(pixels, binary_data=binary)


def image_input(files: list[bytes], *, binary: bool = True, column: bool = False) -> triton.InferInput:
    values = np.array(files if binary else [base64.b64encode(each) for each in files], dtype=np.object_)
    values = values.reshape(-1, 1) if column else values
    tensor = triton.InferInput("image", list(values.shape), "BYTES")
    return tensor.set_data_from_numpy(values, binary_data=binary)


def test_health_and_metadata(client: triton.InferenceServerClient, bundle: Bundle) -> None:
    version = bundle.manifest.version

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, version)
    assert not client.is_model_ready("another")
    assert not client.is_model_ready(MODEL, "1")
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("halftone", ["binary_tensor_data", "classification"])
    model = client.get_model_metadata(MODEL)
    assert model == client.get_model_metadata(MODEL, version)
    assert (model["name"], model["versions"]) == (MODEL, [version])
    assert model["inputs"] == [
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, 224, 224, 3]},
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
    ]
    assert model["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [-1, 1000]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 1000]},
    ]
    index = client.get_model_repository_index()
    assert index == [{"name": MODEL, "version": version, "state": "READY", "reason": ""}]


def test_configuration(client: triton.InferenceServerClient, bundle: Bundle) -> None:
    config = client.get_model_config(MODEL)

    assert config == client.get_model_config(MODEL, bundle.manifest.version)
    assert (config["name"], config["backend"], config["max_batch_size"]) == (MODEL, "halftone", 64)
    tensors = [*config["input"], *config["output"]]
    assert [(each["name"], each["data_type"], each["dims"]) for each in tensors] == [
        ("pixels", "TYPE_UINT8", [224, 224, 3]),
        ("image", "TYPE_STRING", [1]),
        ("logits", "TYPE_FP32", [1000]),
        ("probabilities", "TYPE_FP32", [1000]),
    ]
    # Nothing but what is in Triton's own message, or this raises.
    ParseDict(config, ModelConfig())


def test_statistics_count_what_was_done(client: triton.InferenceServerClient, bundle: Bundle) -> None:
    def read() -> dict[str, Any]:
        (model,) = client.get_inference_statistics(MODEL)["model_stats"]
        return dict(model)

    before = read()
    client.infer(MODEL, [image_input(FILES)])
    with pytest.raises(InferenceServerException):
        client.infer(MODEL, [image_input([b"no picture"])])
    after = read()

    assert (after["name"], after["version"]) == (MODEL, bundle.manifest.version)
    assert after["inference_count"] - before["inference_count"] == 3
    assert 1 <= after["execution_count"] - before["execution_count"] <= 3
    assert after["last_inference"] > before["last_inference"]
    steps = {"success": 1, "fail": 1, "queue": 3, "compute_input": 4, "compute_infer": 3}
    for name, count in steps.items():
        old, new = before["inference_stats"][name], after["inference_stats"][name]
        assert new["count"] - old["count"] == count, name
        assert new["ns"] > old["ns"], name
    runs = sum(each["batch_size"] * each["compute_infer"]["count"] for each in after["batch_stats"])
    assert runs == after["inference_count"]
    assert client.get_inference_statistics(MODEL, bundle.manifest.version)["model_stats"] == [after]
    assert client.get_inference_statistics()["model_stats"] == [after]
    # Nothing but what is in Triton's own message, or this raises.
    ParseDict({"model_stats": [after]}, ModelStatisticsResponse())


@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("binary_input", [True, False])
def test_pixels_go_straight_to_the_model(
    client: triton.InferenceServerClient,
    bundle: Bundle,
    pixels: np.ndarray,
    logits: np.ndarray,
    binary_input: bool,
    binary_output: bool,
) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_output) for name in ("probabilities", "logits")]

    result = client.infer(MODEL, [pixel_input(pixels, binary=binary_input)], outputs=wanted, request_id="42")

    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == (MODEL, bundle.manifest.version)
    assert response["id"] == "42"
    assert [output["name"] for output in response["outputs"]] == ["probabilities", "logits"]
    answered = result.as_numpy("logits")
    assert (answered.dtype, answered.shape) == (np.float32, (3, 1000))
    np.testing.assert_allclose(answered, logits, **CLOSE)
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), softmax(answered, bundle.manifest.temperature), atol=1e-6
    )


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_picture_files_are_decoded_by_the_server(
    client: triton.InferenceServerClient, logits: np.ndarray, binary: bool, column: bool
) -> None:
    result = client.infer(MODEL, [image_input(FILES, binary=binary, column=column)])

    np.testing.assert_allclose(result.as_numpy("logits"), logits, **CLOSE)
    assert result.as_numpy("probabilities").shape == (3, 1000)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_classification(
    client: triton.InferenceServerClient, bundle: Bundle, output: str, logits: np.ndarray, binary: bool
) -> None:
    wanted = triton.InferRequestedOutput(output, binary_data=binary, class_count=3)

    answer = client.infer(MODEL, [image_input(FILES)], outputs=[wanted]).as_numpy(output)

    assert answer.shape == (3, 3)
    for row, expected in zip(answer, logits, strict=True):
        texts = [text.decode() if isinstance(text, bytes) else text for text in row]
        values, indices, labels = zip(*(text.split(":", 2) for text in texts), strict=True)
        assert int(indices[0]) in np.argsort(-expected)[:3]
        assert list(map(float, values)) == sorted(map(float, values), reverse=True)
        assert list(labels) == [bundle.manifest.labels[int(index)] for index in indices]


def test_one_picture_without_outputs_as_json(server: Server, logits: np.ndarray) -> None:
    """The request of KServe's documentation: JSON only, as with curl."""
    data = base64.b64encode(FILES[0]).decode()
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}]

    answer = server.post(f"/v2/models/{MODEL}/infer", json={"inputs": inputs}).json()

    assert [output["name"] for output in answer["outputs"]] == ["logits", "probabilities"]
    assert answer["outputs"][0]["shape"] == [1, 1000]
    assert int(np.argmax(answer["outputs"][0]["data"])) == logits[0].argmax()
    assert "id" not in answer


def test_errors_reach_the_client(client: triton.InferenceServerClient, pixels: np.ndarray) -> None:
    one = pixel_input(pixels[:1])
    floats = triton.InferInput("pixels", [1, 224, 224, 3], "FP32")
    floats.set_data_from_numpy(pixels[:1].astype(np.float32))
    renamed = triton.InferInput("input", [1, 224, 224, 3], "UINT8").set_data_from_numpy(pixels[:1])
    shared = triton.InferInput("pixels", [1, 224, 224, 3], "UINT8").set_shared_memory("region", 10)
    output = triton.InferRequestedOutput
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("404", MODEL, {"model_name": "another", "inputs": [one]}),
        ("404", "version", {"model_version": "1", "inputs": [one]}),
        ("422", "UINT8", {"inputs": [floats]}),
        ("422", "pixels or image", {"inputs": [renamed]}),
        ("422", "exactly one", {"inputs": [one, image_input(FILES[:1])]}),
        ("422", "exactly one", {"inputs": []}),
        ("422", "224, 224, 3", {"inputs": [pixel_input(pixels[:, :100])]}),
        ("422", "224, 224, 3", {"inputs": [pixel_input(pixels[0])]}),
        ("422", "1 to 64", {"inputs": [pixel_input(pixels[:0])]}),
        ("422", "1 to 64", {"inputs": [image_input(FILES[:1] * 65)]}),
        ("422", "logits", {"inputs": [one], "outputs": [output("label")]}),
        ("422", "once", {"inputs": [one], "outputs": [output("logits"), output("logits")]}),
        ("422", "shared memory", {"inputs": [shared]}),
        ("504", "0.0001 s", {"inputs": [image_input(FILES)], "timeout": 100}),
        ("400", "not a picture", {"inputs": [image_input([b"hello"])]}),
        ("415", "picture 1 of 2: GIF", {"inputs": [image_input([FILES[0], b"GIF89a" + bytes(50)])]}),
    ]
    for status, words, call in calls:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(**{"model_name": MODEL} | call)
        assert caught.value.status() == status, caught.value
        assert words in caught.value.message()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/v2/nothing", b"", 404, "/v2/models/NAME"),
        ("GET", "/v2/", b"", 404, "nothing"),
        ("GET", f"/v2/models/{MODEL}/trace/setting", b"", 404, "nothing"),
        ("POST", f"/v2/models/{MODEL}/config", b"", 405, "GET"),
        ("POST", "/v2/health/live", b"", 405, "GET"),
        ("GET", f"/v2/models/{MODEL}/infer", b"", 405, "POST"),
        ("POST", f"/v2/models/{MODEL}/infer", b"", 400, "JSON"),
        ("POST", f"/v2/models/{MODEL}/infer", b"[]", 400, "not an object"),
        ("POST", f"/v2/models/{MODEL}/infer", b"\xff\xd8\xff", 400, "JSON"),
        ("POST", f"/v2/models/{MODEL}/infer", b'{"inputs": [1]}', 400, "inputs"),
        ("POST", f"/v2/models/{MODEL}/infer", b'{"id": "\\ud800", "inputs": []}', 400, "surrogate"),
        ("POST", f"/v2/models/{MODEL}/infer", b'{"inputs": []} and more', 400, "JSON"),
        ("POST", "/v2/repository/index", b"{", 400, "JSON"),
    ],
)
def test_errors_are_a_text(server: Server, method: str, path: str, body: bytes, status: int, words: str) -> None:
    response = server.post(path, content=body) if method == "POST" else server.get(path)

    assert response.status_code == status, response.text
    assert isinstance(response.json()["error"], str)
    assert words in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "999999", "0", "³"])
def test_a_wrong_length_of_the_json(server: Server, length: str) -> None:
    body = json.dumps({"inputs": []}).encode()

    response = server.post(
        f"/v2/models/{MODEL}/infer",
        content=body,
        headers={b"Inference-Header-Content-Length": length.encode("latin-1")},
    )

    assert response.status_code == 400
    assert isinstance(response.json()["error"], str)


def test_limits_hold(narrow_server: Server) -> None:
    big = narrow_server.post(f"/v2/models/{MODEL}/infer", content=bytes(2**20 + 1))
    many = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [3], "data": ["", "", ""]}]}
    much = narrow_server.post(f"/v2/models/{MODEL}/infer", json=many)

    assert (big.status_code, much.status_code) == (413, 422)
    assert "1 to 2" in much.json()["error"]
