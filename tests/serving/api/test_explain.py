"""`POST /explain`: a heat map as numbers or as a picture, as strict with pictures as /classify."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from export.explain.heat import HeatMaps
from export.runtime import Pixels
from models.bundle.bundle import Bundle
from models.preprocess.decode import decode
from models.preprocess.transform import load
from tests.samples import oriented
from tests.servers import PHOTOS, Server
from tests.serving.api.test_errors import PICTURES, check

CAT = (PHOTOS / "cat.jpg").read_bytes()


@pytest.fixture(scope="module")
def bundle(artifacts) -> Bundle:
    return Bundle.open(artifacts / "efficientnet_lite0")


@pytest.fixture(scope="module")
def pixels(bundle: Bundle) -> Pixels:
    return load(CAT, bundle.manifest.input)


def test_the_map_of_the_best_class(server: Server, bundle: Bundle, pixels: Pixels) -> None:
    expected = HeatMaps(bundle).explain(pixels)

    response = server.post("/explain", files={"image": CAT})

    answer = response.json()
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert list(answer) == [
        "model", "version", "variant", "method", "label", "index", "probability", "box", "map",
    ]  # fmt: skip
    assert (answer["model"], answer["version"]) == ("efficientnet_lite0", bundle.manifest.version)
    assert (answer["variant"], answer["method"]) == ("onnxruntime-fp32", "class activation map")
    best = server.post("/classify", content=CAT).json()["predictions"][0]
    assert (answer["label"], answer["index"]) == (best["label"], best["index"])
    assert answer["probability"] == pytest.approx(best["probability"], abs=0.02)
    np.testing.assert_allclose(answer["map"], expected.map, atol=1e-4)


@pytest.mark.parametrize("name", ["espresso", "n07920052", "967"])
def test_a_class_by_label_id_or_index(server: Server, name: str) -> None:
    in_query = server.post("/explain", params={"class": name}, content=CAT).json()
    in_form = server.post("/explain", data={"class": name}, files={"image": CAT}).json()

    assert in_form == in_query
    assert (in_query["label"], in_query["index"]) == ("espresso", 967)


def test_the_box_is_the_part_that_the_model_sees(server: Server, bundle: Bundle, pixels: Pixels) -> None:
    """Cut out of the upright picture and resized, it is nearly the model's input."""
    turned = oriented(Image.open(io.BytesIO(CAT)), "PNG", 6)
    expected = load(turned, bundle.manifest.input).astype(float)

    box = server.post("/explain", content=turned).json()["box"]

    upright = Image.fromarray(decode(turned))
    edges = [fraction * side for fraction, side in zip(box, upright.size * 2, strict=True)]
    size = (bundle.manifest.input.size,) * 2
    seen = np.asarray(upright.resize(size, Image.Resampling.BICUBIC, box=tuple(edges))).astype(float)
    assert np.abs(seen - expected).mean() < 1
    assert np.abs(seen - pixels).mean() > 10


@pytest.mark.parametrize(
    ("query", "accept", "png"),
    [
        ("", "*/*", False),
        ("?format=png", "application/json", True),
        ("?format=json", "image/png", False),
        ("", "image/png", True),
        ("", "image/avif,image/png;q=0.8,*/*;q=0.5", True),
        ("", "application/json, image/png", False),
    ],
)
def test_numbers_or_a_picture(server: Server, query: str, accept: str, png: bool) -> None:
    response = server.post(f"/explain{query}", content=CAT, headers={"Accept": accept})

    assert response.status_code == 200
    if png:
        assert response.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(response.content)).size == (224, 224)
    else:
        assert json.loads(response.content)["method"] == "class activation map"


@pytest.mark.parametrize(
    ("data", "status", "code"), [case[1:] for case in PICTURES], ids=[case[0] for case in PICTURES]
)
def test_bad_pictures_are_refused_as_by_classify(server: Server, data: bytes, status: int, code: str) -> None:
    for path in ("/explain", "/explain?format=png"):
        check(server.post(path, files={"image": ("photo.jpg", data, "image/jpeg")}), status, code)
    ours, theirs = (
        server.post(path, content=data, headers={"Content-Type": "image/jpeg"}).json()
        for path in ("/explain", "/classify")
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?class=tabi", ["did you mean 'tabby'"]),
        ("?class=1000", ["choose one from 0 to 999"]),
        ("?class=", ["has no class ''"]),
        ("?class=" + "9" * 5000, ["has no class"]),
        ("?format=gif", ["json or png", "gif"]),
        ("?top_k=5", ["top_k", "class, model, format"]),
        ("?class=1&class=2", ["more than once"]),
    ],
)
def test_wrong_parameters_are_named(server: Server, query: str, words: list[str]) -> None:
    check(server.post(f"/explain{query}", content=CAT), 422, "bad_parameter", *words)


def test_other_mistakes(server: Server, narrow_server: Server) -> None:
    check(server.post("/explain", files=[("image", CAT), ("image", CAT)]), 422, "bad_parameter", "exactly one")
    check(server.post("/explain?model=other", content=CAT), 404, "model_not_found")
    check(server.get("/explain"), 405, "method_not_allowed", "POST")
    check(server.post("/explain", content=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
    check(server.post("/classify?class=tabby", content=CAT), 422, "bad_parameter", "class")
    # This one is switched off.
    check(narrow_server.post("/explain", content=CAT), 404, "not_found", "HALFTONE_EXPLAIN")
