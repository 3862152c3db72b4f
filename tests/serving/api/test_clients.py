"""Requests as the clients of other languages, browsers and cloud SDKs send them."""

import base64
import gzip
import json
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.http.errors import RequestError
from serving.http.multipart import parse_form
from tests.servers import PHOTOS, Server

CAT = (PHOTOS / "cat.jpg").read_bytes()
TEXT = base64.b64encode(CAT).decode()
URL_SAFE = base64.urlsafe_b64encode(CAT).decode().rstrip("=")
LINES = base64.encodebytes(CAT).decode()
RAW = zlib.compressobj(wbits=-15)
DEFLATED = RAW.compress(CAT) + RAW.flush()
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
V2 = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT]}]}).encode()


def label(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["predictions"][0]["label"])


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(CAT)),
        ("x-gzip", gzip.compress(CAT)),
        ("GZIP", gzip.compress(CAT[:1000]) + gzip.compress(CAT[1000:])),
        ("deflate", zlib.compress(CAT)),
        ("deflate", DEFLATED),
        ("identity", CAT),
        ("identity, gzip", gzip.compress(CAT)),
    ],
)
def test_an_encoded_body_is_decoded(server: Server, encoding: str, body: bytes) -> None:
    response = server.post("/classify", content=body, headers={"Content-Encoding": encoding})

    assert label(response) == "tiger cat"


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("zstd", CAT, (415, "unsupported_media_type")),
        ("br", CAT, (415, "unsupported_media_type")),
        ("gzip, gzip", gzip.compress(gzip.compress(CAT)), (415, "unsupported_media_type")),
        ("gzip", CAT, (400, "bad_request")),
        ("gzip", gzip.compress(CAT)[:-9], (400, "bad_request")),
        ("deflate", zlib.compress(CAT)[:-9], (400, "bad_request")),
        ("gzip", gzip.compress(CAT) + gzip.compress(b"") * 100_000, (400, "bad_request")),
        ("gzip", gzip.compress(bytes(33 * 2**20)), (413, "body_too_large")),
    ],
    ids=["zstd", "brotli", "twice", "not gzip", "cut gzip", "cut deflate", "many members", "bomb"],
)
def test_what_can_not_be_decoded_is_named(
    server: Server, encoding: str, body: bytes, expected: tuple[int, str]
) -> None:
    response = server.post("/classify", content=body, headers={"Content-Encoding": encoding})

    assert error(response) == expected
    assert expected[0] != 415 or repr(encoding) in response.text


def test_the_open_inference_protocol_decodes_too(server: Server) -> None:
    path = "/v2/models/efficientnet_lite0/infer"

    assert server.post(path, content=gzip.compress(V2), headers={"Content-Encoding": "gzip"}).status_code == 200
    refused = server.post(path, content=V2, headers={"Content-Encoding": "zstd"})
    assert (refused.status_code, "'zstd' is not supported" in refused.json()["error"]) == (415, True)


@pytest.mark.parametrize("text", [TEXT, URL_SAFE, LINES, f"data:image/jpeg;base64,{TEXT}"], ids=len)
def test_a_picture_may_be_base64_in_json(server: Server, text: str) -> None:
    assert label(server.post("/classify", json={"image": text})) == "tiger cat"


def test_pictures_may_be_base64_in_json_with_parameters(server: Server) -> None:
    sent = {"images": [TEXT, base64.b64encode(b"no picture").decode()], "top_k": 2}
    results = server.post("/classify_batch", json=sent).json()["results"]

    assert [results[0]["predictions"][0]["label"], len(results[0]["predictions"])] == ["tiger cat", 2]
    assert results[1]["error"]["code"] == "not_an_image"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, (422, "bad_parameter")),
        ({"image": 7}, (422, "bad_parameter")),
        ({"image": [TEXT, TEXT]}, (422, "bad_parameter")),
        ({"images": [TEXT]}, (422, "bad_parameter")),
        ({"image": "https://example.org/cat.jpg"}, (422, "bad_parameter")),
        ({"image": "http:"}, (422, "bad_parameter")),
        ({"image": TEXT, "threshold": 1}, (422, "bad_parameter")),
        ({"image": ""}, (400, "not_an_image")),
        ([TEXT], (400, "bad_request")),
    ],
    ids=str,
)
def test_json_without_a_picture_says_what_is_wanted(server: Server, sent: Any, expected: tuple[int, str]) -> None:
    assert error(server.post("/classify", json=sent)) == expected


def test_more_classes_than_there_are_is_all_of_them(server: Server) -> None:
    assert len(server.post("/classify", params={"top_k": 10**20}, content=CAT).json()["predictions"]) == 1000
    outputs = [{"name": "logits", "parameters": {"classification": 10**6}}]
    answer = server.post("/v2/models/efficientnet_lite0/infer", json=json.loads(V2) | {"outputs": outputs}).json()
    assert (answer["outputs"][0]["shape"], len(answer["outputs"][0]["data"])) == ([1, 1000], 1000)


def test_the_only_file_of_a_form_is_the_picture(server: Server) -> None:
    assert label(server.post("/classify", files={"file": ("cat.jpg", CAT)}, data={"top_k": "1"})) == "tiger cat"
    assert len(server.post("/classify_batch", files=[("file", CAT), ("file", CAT)]).json()["results"]) == 2
    two = server.post("/classify", files={"first": CAT, "second": CAT})
    assert (error(two), "no field `image`" in two.text) == ((422, "bad_parameter"), True)


def test_text_before_the_first_part_of_a_form_is_skipped(server: Server) -> None:
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + CAT + b"\r\n--b--\r\n"

    assert label(server.post("/classify", content=b"This is a form.\r\n" + part, headers=FORM)) == "tiger cat"


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(preamble=st.binary(max_size=40), content=st.binary(max_size=200))
def test_a_preamble_changes_no_part(preamble: bytes, content: bytes) -> None:
    form = b'--xy\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + content + b"\r\n--xy--\r\n"
    try:
        expected = parse_form("multipart/form-data; boundary=xy", form)
    except RequestError:
        return

    if b"--xy" not in preamble:
        assert parse_form("multipart/form-data; boundary=xy", preamble + b"\r\n" + form) == expected
