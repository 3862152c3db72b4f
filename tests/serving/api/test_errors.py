"""Every error code of a real server: a client's mistake is never a 500, and its message names the fix."""

import asyncio
import http.client
import io
import socket
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.servers import PHOTOS, Server, bentoml_client, wait_until

CAT = (PHOTOS / "cat.jpg").read_bytes()


def encoded(width: int, height: int, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a small PNG whose header announces another size."""
    data = bytearray(encoded(1, 1, "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def check(response: httpx.Response, status: int, code: str, *words: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert set(error) == {"code", "message"}
    for word in words:
        assert word in error["message"]


PICTURES: list[tuple[str, bytes, int, str]] = [
    ("empty", b"", 400, "not_an_image"),
    ("text", b"hello, world", 400, "not_an_image"),
    ("json", b'{"image": "http://127.0.0.1/x.jpg"}', 400, "not_an_image"),
    ("half a JPEG", CAT[: len(CAT) // 2], 400, "broken_image"),
    ("only a JPEG's start", CAT[:3], 400, "broken_image"),
    ("half a PNG", encoded(50, 50, "PNG")[:60], 400, "broken_image"),
    ("half a WebP", encoded(50, 50, "WebP")[:40], 400, "broken_image"),
    ("GIF", b"GIF89a" + bytes(50), 415, "unsupported_media_type"),
    ("BMP", encoded(5, 5, "BMP"), 415, "unsupported_media_type"),
    ("TIFF", encoded(5, 5, "TIFF"), 415, "unsupported_media_type"),
    ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_media_type"),
    ("pixel bomb", png_header(60_000, 60_000), 413, "too_many_pixels"),
]


@pytest.mark.parametrize(
    ("data", "status", "code"), [case[1:] for case in PICTURES], ids=[case[0] for case in PICTURES]
)
def test_bad_pictures_as_field_and_as_body(server: Server, data: bytes, status: int, code: str) -> None:
    check(server.post("/classify", files={"image": ("photo.jpg", data, "image/jpeg")}), status, code)
    check(server.post("/classify", content=data, headers={"Content-Type": "image/jpeg"}), status, code)


@pytest.mark.parametrize("top_k", ["0", "-1", "many", "", "1.5", "９", "00", "9" * 401])
def test_top_k_out_of_range(server: Server, top_k: str) -> None:
    check(server.post("/classify", params={"top_k": top_k}, content=CAT), 422, "bad_parameter", "1 on")


@pytest.mark.parametrize(
    ("query", "files", "word"),
    [
        ("?topk=3", {"image": CAT}, "topk"),
        ("?top_k=3&top_k=4", {"image": CAT}, "more than once"),
        ("", {"left": CAT, "right": CAT}, "`image`"),
        ("", [("image", CAT), ("image", CAT)], "/classify_batch"),
        ("", {"image": CAT, "other": CAT}, "other"),
    ],
)
def test_wrong_parameters_are_named(server: Server, query: str, files: object, word: str) -> None:
    check(server.post(f"/classify{query}", files=files), 422, "bad_parameter", word)


@pytest.mark.parametrize(
    "content_type",
    ["application/vnd.bentoml+pickle", "application/x-www-form-urlencoded", "text/plain"],
)
def test_bodies_that_claim_to_be_no_picture_and_are_none(server: Server, content_type: str) -> None:
    response = server.post("/classify", content=b"image=http://x", headers={"Content-Type": content_type})

    check(response, 415, "unsupported_media_type", "-F image=@")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ncut'),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=" + "x" * 300, b""),
    ],
)
def test_damaged_forms(server: Server, content_type: str, body: bytes) -> None:
    check(server.post("/classify", content=body, headers={"Content-Type": content_type}), 400, "bad_form")


def test_unknown_paths_and_methods(server: Server) -> None:
    check(server.get("/nothing"), 404, "not_found", "/classify")
    check(server.post("/classify/submit", content=CAT), 404, "not_found")
    check(server.get("/classify"), 405, "method_not_allowed", "POST")
    assert server.get("/classify").headers["allow"] == "POST"
    check(server.post("/models"), 405, "method_not_allowed", "GET")
    check(server.post("/metrics"), 405, "method_not_allowed", "GET")


def test_bentomls_client_raises_an_exception(server: Server) -> None:
    result = bentoml_client(server, "client.classify(image=photos / 'LICENSES.md')")

    assert (result.returncode, result.stdout) == (1, "")
    assert "not_an_image" in result.stderr


def test_too_many_bytes(narrow_server: Server) -> None:
    for size in (2**20 + 1, 3 * 2**20, 30 * 2**20):
        check(narrow_server.post("/classify", content=CAT + bytes(size)), 413, "body_too_large", "1 MiB")
    check(narrow_server.post("/classify", files={"image": bytes(2**20)}), 413, "body_too_large")


def test_too_many_bytes_of_unannounced_length(narrow_server: Server) -> None:
    chunks = (bytes(2**16) for _ in range(40))

    check(narrow_server.post("/classify", content=chunks), 413, "body_too_large")


def test_too_many_pixels_and_too_many_pictures(narrow_server: Server) -> None:
    check(narrow_server.post("/classify", content=encoded(4000, 4000)), 413, "too_many_pixels", "13,000,000")
    check(narrow_server.post("/classify_batch", files=[("images", CAT)] * 3), 422, "bad_parameter", "1 to 2")


def test_a_slow_body_is_refused(narrow_server: Server) -> None:
    address = urlsplit(narrow_server.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
        response = http.client.HTTPResponse(connection)
        response.begin()
        body = response.read()

    assert (response.status, b"body_too_slow" in body) == (408, True)


def test_a_request_that_takes_too_long(narrow_server: Server) -> None:
    # WebP, because no decoder reads it at a fraction of its size, unlike JPEG: at least twice the deadline on any core.
    detailed = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(detailed).resize((3000, 2500)).save(file, "WebP", quality=5, method=0)

    check(narrow_server.post("/classify", content=file.getvalue()), 504, "deadline_passed", "0.05 s")


# A connection that is closed after the response must stay open until the picture was sent: otherwise the client would
# not see the response.
@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}, {"Expect": "100-continue"}])
def test_more_than_the_queue_holds_is_refused_with_retry_after(narrow_server: Server, headers: dict[str, str]) -> None:
    slow = encoded(3500, 3500)
    slow += bytes(900_000 - len(slow))

    async def flood() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=narrow_server.url, timeout=60, headers=headers) as client:
            return await asyncio.gather(*(client.post("/classify", content=slow) for _ in range(24)))

    responses = asyncio.run(flood())

    refused = [response for response in responses if response.status_code == 429]
    assert {response.status_code for response in responses} <= {200, 429, 504}
    assert refused
    for response in refused:
        check(response, 429, "too_many_requests", "try again in")
        assert int(response.headers["retry-after"]) >= 1


def test_a_request_without_room_is_refused_before_its_body_is_read(narrow_server: Server) -> None:
    slow, address = encoded(3500, 3500), urlsplit(narrow_server.url)
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(CAT)}\r\n\r\n"
    stop = threading.Event()

    def flood() -> None:
        with httpx.Client(base_url=narrow_server.url, timeout=60) as client:
            while not stop.is_set():
                client.post("/classify", content=slow)

    def send_head() -> http.client.HTTPResponse | None:
        """Send a head without its body; return the response, or None if none comes."""
        connection = socket.create_connection((address.hostname, address.port), timeout=0.2)
        connection.sendall(head.encode())
        response = http.client.HTTPResponse(connection)
        try:
            response.begin()
        except TimeoutError:
            connection.close()
            return None
        connections.append(connection)
        return response

    connections: list[socket.socket] = []
    with ThreadPoolExecutor(12) as pool:
        for _ in range(12):
            pool.submit(flood)
        try:
            refused = next(response for response in (send_head() for _ in range(100)) if response is not None)
        finally:
            stop.set()

    assert refused.status == 429
    assert int(refused.getheader("Retry-After", "0")) >= 1
    refused.read()
    # The body of the refused request is dropped, and the connection stays open.
    (connection,) = connections
    connection.settimeout(60)
    connection.sendall(CAT + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    with http.client.HTTPResponse(connection) as alive:
        alive.begin()
        assert alive.status == 200
    connection.close()


def test_the_service_still_serves_after_all_these_errors(narrow_server: Server) -> None:
    picture = encoded(64, 64)

    wait_until(
        lambda: narrow_server.post("/classify", content=picture).status_code == 200, "a small picture was answered"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_picture_never_gets_a_500(server: Server, kind: str, data: st.DataObject) -> None:
    picture = bytearray(MUTATED[kind])
    for _ in range(data.draw(st.integers(1, 8), label="mutations")):
        position = data.draw(st.integers(0, len(picture) - 1), label="position")
        picture[position] = data.draw(st.integers(0, 255), label="byte")
    end = data.draw(st.integers(1, len(picture)) | st.just(len(picture)), label="length")

    response = server.post("/classify", content=bytes(picture[:end]), headers={"Content-Type": "image/jpeg"})

    assert response.status_code in (200, 400, 413, 415), response.text


def _small(kind: str) -> bytes:
    file = io.BytesIO()
    Image.open(PHOTOS / "cat.jpg").resize((64, 48)).save(file, kind)
    return file.getvalue()


MUTATED = {kind: _small(kind) for kind in ("JPEG", "PNG", "WebP")}
