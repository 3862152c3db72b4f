"""A real server classifies real photographs for every kind of client as the bundle's own runtime does."""

import asyncio
import io
import json
import re
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from export.variants import load
from models.bundle.bundle import Bundle
from models.common.host import cores
from models.common.statistics import softmax
from models.preprocess.transform import load as load_picture
from tests.servers import PHOTOS, Server, bentoml_client, wait_until

EXPECTED = {
    "cat.jpg": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee.jpg": {"espresso", "cup"},
    "rocket.jpg": {"missile"},
}
CAT = (PHOTOS / "cat.jpg").read_bytes()
photos = pytest.mark.parametrize("photo", sorted(PHOTOS.glob("*.jpg")), ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def bundle(artifacts: Path) -> Bundle:
    return Bundle.open(artifacts / "efficientnet_lite0")


@pytest.mark.parametrize("name", EXPECTED)
def test_photographs_get_the_right_label(server: Server, name: str) -> None:
    answer = server.post("/classify", files={"image": (PHOTOS / name).read_bytes()}).json()

    assert answer["predictions"][0]["label"] in EXPECTED[name]


def test_the_response_has_the_documented_form(server: Server, bundle: Bundle) -> None:
    response = server.post("/classify", files={"image": (PHOTOS / "cat.jpg").read_bytes()})

    answer = response.json()
    probabilities = [prediction["probability"] for prediction in answer["predictions"]]
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    # Without labels, the default model can't promise more.
    assert set(answer) == {"model", "version", "variant", "predictions", "unfamiliar"}
    assert answer["unfamiliar"] is False
    assert (answer["model"], answer["version"]) == ("efficientnet_lite0", bundle.manifest.version)
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    for prediction in answer["predictions"]:
        assert set(prediction) == {"label", "index", "probability"}
        assert prediction["label"] == bundle.manifest.labels[prediction["index"]]


@photos
def test_the_same_pixels_reach_the_same_runtime(server: Server, bundle: Bundle, photo: Path) -> None:
    data = photo.read_bytes()
    variant = server.get("/models").json()["models"][0]["variant"]
    runtime = load(bundle, variant, threads=cores(), streams=cores())
    pixels = load_picture(data, bundle.manifest.input)
    expected = softmax(runtime.run(pixels[np.newaxis]))[0]

    answer = server.post("/classify", params={"top_k": 1000}, files={"image": data}).json()

    served = np.zeros(1000)
    for prediction in answer["predictions"]:
        served[prediction["index"]] = prediction["probability"]
    np.testing.assert_allclose(served, expected, atol=1e-5)


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/png", "image/jpg", "application/octet-stream", None])
def test_the_bytes_of_a_raw_body_count_and_not_its_label(server: Server, content_type: str | None) -> None:
    data = (PHOTOS / "cat.jpg").read_bytes()
    form = server.post("/classify", files={"image": data}).json()

    response = server.post("/classify", content=data, headers={"Content-Type": content_type} if content_type else {})

    assert response.json() == form


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_formats(server: Server, kind: str) -> None:
    file = io.BytesIO()
    Image.open(PHOTOS / "cat.jpg").save(file, kind)

    answer = server.post("/classify", files={"image": ("photo.txt", file.getvalue(), "text/plain")}).json()

    assert answer["predictions"][0]["label"] in EXPECTED["cat.jpg"]


def test_top_k_from_the_query_or_the_form(server: Server) -> None:
    files = {"image": (PHOTOS / "cat.jpg").read_bytes()}

    in_query = server.post("/classify?top_k=3", files=files).json()
    in_form = server.post("/classify", files=files, data={"top_k": "3"}).json()

    assert len(in_query["predictions"]) == 3
    assert in_form == in_query


def test_a_batch_is_in_order_and_a_bad_picture_is_an_error_in_its_slot(server: Server) -> None:
    cat, coffee = (PHOTOS / "cat.jpg").read_bytes(), (PHOTOS / "coffee.jpg").read_bytes()
    pictures = [cat, b"not a picture", coffee, cat[: len(cat) // 2], b"GIF89a" + bytes(20)]

    response = server.post("/classify_batch", files=[("images", picture) for picture in pictures])

    results = response.json()["results"]
    assert response.status_code == 200
    assert [result.get("error", {}).get("code") for result in results] == [
        None,
        "not_an_image",
        None,
        "broken_image",
        "unsupported_media_type",
    ]
    for index, picture in ((0, cat), (2, coffee)):
        assert results[index]["predictions"] == server.post("/classify", files={"image": picture}).json()["predictions"]


def test_many_clients_at_once_get_their_own_responses(server: Server) -> None:
    pictures = {path.name: path.read_bytes() for path in PHOTOS.glob("*.jpg")}
    alone = {name: server.post("/classify", content=data).json() for name, data in pictures.items()}

    async def send_all(names: list[str]) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            return await asyncio.gather(*(client.post("/classify", content=pictures[name]) for name in names))

    names = [*pictures] * 4
    for name, response in zip(names, asyncio.run(send_all(names)), strict=True):
        assert response.json() == alone[name]


def test_bentomls_client(server: Server) -> None:
    answers = bentoml_client(
        server,
        "client.classify(image=photos / 'cat.jpg', top_k=2), "
        "client.classify_batch(images=[photos / 'cat.jpg', photos / 'coffee.jpg'])",
    )

    one, several = json.loads(answers.stdout)
    labels = [result["predictions"][0]["label"] for result in several["results"]]
    assert [prediction["label"] in EXPECTED["cat.jpg"] for prediction in one["predictions"]] == [True, True]
    assert [label in EXPECTED["coffee.jpg"] for label in labels] == [False, True]


def test_curl_as_the_server_prints_it(server: Server) -> None:
    wait_until(lambda: "/ui" in server.log.read_text(), "a curl line was printed")
    line = next(line for line in server.log.read_text().splitlines() if "curl" in line)
    command = line[line.index("curl") :].split()

    result = subprocess.run([*command, "-s"], cwd=PHOTOS.parent.parent, capture_output=True, check=True)

    assert json.loads(result.stdout)["predictions"][0]["label"] in EXPECTED["cat.jpg"]


def test_models_describes_the_loaded_models_and_their_proofs(server: Server, bundle: Bundle) -> None:
    (model,) = server.get("/models").json()["models"]

    assert model["version"] == bundle.manifest.version
    assert model["parity"]["verdict"] == "PASSED"
    assert model["parity"]["figures"]["images"] >= 256
    assert model["input"] == bundle.manifest.input.to_dict()
    assert model["labels"] == list(bundle.manifest.labels)


def test_health(server: Server) -> None:
    assert server.get("/livez").status_code == 200
    assert server.get("/healthz").status_code == 200
    ready = server.get("/readyz")
    assert (ready.status_code, ready.json()["model"]) == (200, "efficientnet_lite0")


def test_metrics_count_requests(server: Server) -> None:
    server.post("/classify", content=(PHOTOS / "cat.jpg").read_bytes())

    counted = 'halftone_request_seconds_count{model="efficientnet_lite0",route="/classify",status="200"}'
    wait_until(lambda: counted in server.get("/metrics").text, "the request was counted")


def test_head_has_the_headers_of_get_and_no_body(server: Server) -> None:
    head = httpx.head(server.url + "/models")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == server.get("/models").headers["content-length"]


def test_the_page_and_the_api_browser_load(server: Server) -> None:
    page = server.get("/ui")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "ui/main.js" in page.text
    assert "docs.json" in server.get("/").text


def test_the_page_has_sample_photographs_with_their_makers_and_licences(server: Server) -> None:
    credits = server.get("/ui/samples.json").json()

    assert [each["name"] for each in credits] == sorted(photo.stem for photo in PHOTOS.glob("*.jpg"))
    assert all(each["shows"] and each["origin"] and each["license"] for each in credits)
    whole, small = (server.get(f"/ui/{kind}/cat.jpg") for kind in ("samples", "small"))
    assert whole.content == CAT
    assert len(small.content) < 20_000
    assert Image.open(io.BytesIO(small.content)).size == (176, 176)


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/nothing.js", "/ui/small/dog.jpg", "/ui/cat.jpg", "/ui/samples/../page.html"]
)
def test_the_page_has_no_other_files(server: Server, path: str) -> None:
    assert server.get(path).status_code == 404
    assert server.post("/ui/main.js").status_code == 405


def test_an_answer_for_one_picture_says_where_its_time_went(server: Server) -> None:
    started = time.monotonic()
    one = server.post("/classify", content=CAT)
    milliseconds = 1000 * (time.monotonic() - started)
    several = server.post("/classify_batch", files=[("images", CAT), ("images", CAT)])

    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", one.headers["server-timing"]))
    assert list(stages) == ["decode", "queue", "model"]
    assert 0 < sum(map(float, stages.values())) < milliseconds
    assert "server-timing" not in several.headers
    assert "server-timing" not in server.post("/classify", content=b"no picture").headers


def test_openapi_describes_every_path_and_response(server: Server) -> None:
    document = server.get("/docs.json").json()

    assert document["openapi"].startswith("3.")
    own = {
        "/classify",
        "/classify_batch",
        "/explain",
        "/models",
        "/livez",
        "/healthz",
        "/readyz",
        "/docs.json",
        "/metrics",
        "/ui",
    }
    protocol = {"", "/health/live", "/health/ready", "/repository/index", "/models/stats"}
    model = {f"/models/{{name}}{version}" for version in ("", "/versions/{version}")}
    protocol |= {f"{path}{end}" for path in model for end in ("", "/ready", "/infer", "/config", "/stats")}
    assert set(document["paths"]) == own | {f"/v2{path}" for path in protocol}
    errors = {"400", "404", "408", "413", "415", "422", "429", "431", "500", "503", "504"}
    assert set(document["paths"]["/classify"]["post"]["responses"]) == {"200", *errors}
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert names <= set(document["components"]["schemas"])
