"""Admission of requests: API keys, deadlines, slow connections, too many connections, and the budget of bodies."""

import contextlib
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.common.errors import HalftoneError
from serving.http.api_keys import Keys
from serving.http.body import BodyBudget, RequestBody
from serving.http.connections import MAX_PIPELINED
from serving.http.deadline import allowed_seconds
from serving.http.errors import RequestError
from serving.settings import Settings
from tests.servers import PHOTOS, Server, wait_until
from tests.serving.conftest import KEYS

CAT = (PHOTOS / "cat.jpg").read_bytes()
KEY = {"X-API-Key": KEYS[0]}
CONNECTIONS = 20


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        yield connection


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response and no byte more: the next one may follow it already."""
    file = connection.makefile("rb", buffering=0)
    response = http.client.HTTPResponse(connection)
    response.fp = io.BufferedReader(file, 1)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEYS[0]},
        {"X-API-Key": KEYS[1]},
        {"Authorization": f"Bearer {KEYS[0]}"},
        {"Authorization": f"bearer {KEYS[1]}"},
        {"Authorization": "Basic eDp5", "X-API-Key": KEYS[0]},
    ],
)
def test_a_valid_key_is_let_in(guarded_server: Server, headers: dict[str, str]) -> None:
    assert guarded_server.post("/classify", content=CAT, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEYS[0][:-1]},
        {"X-API-Key": KEYS[0] + "x"},
        {"X-API-Key": ",".join(KEYS)},
        {"Authorization": KEYS[0]},
        {"Authorization": f"Basic {KEYS[0]}"},
        {"Authorization": "Bearer"},
        {"Cookie": f"key={KEYS[0]}"},
    ],
)
def test_others_get_401_with_a_challenge(guarded_server: Server, headers: dict[str, str]) -> None:
    response = guarded_server.post("/classify", content=CAT, headers=headers)

    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/livez", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/ui", 200),
        ("/ui/main.js", 200),
        ("/ui/samples/cat.jpg", 200),
        ("/", 200),
        ("/docs", 200),
        ("/static_content/swagger-ui.css", 200),
        ("/metrics", 401),
        ("/models", 401),
        ("/docs.json", 401),
        ("/openapi.json", 401),
        ("/schema.json", 401),
        ("/v2", 401),
        ("/v2/models/efficientnet_lite0", 401),
        ("/nothing", 401),
    ],
)
def test_only_health_and_the_empty_pages_need_no_key(guarded_server: Server, path: str, status: int) -> None:
    assert guarded_server.get(path).status_code == status


def test_the_description_tells_what_needs_a_key(guarded_server: Server) -> None:
    document = guarded_server.get("/docs.json", headers=KEY).json()
    operations = {path: next(iter(item.values())) for path, item in document["paths"].items()}

    assert document["security"] == [{"bearer": []}, {"key": []}]
    assert operations["/livez"]["security"] == []
    for path, described in operations.items():
        assert ("401" in described["responses"]) == (guarded_server.get(path).status_code == 401), path


def test_metrics_need_no_key_by_default(server: Server) -> None:
    assert server.get("/metrics").status_code == 200


def test_the_protocol_refuses_in_its_own_form(guarded_server: Server) -> None:
    assert isinstance(guarded_server.get("/v2/models/efficientnet_lite0").json()["error"], str)


def test_keys_do_not_show_in_the_settings_or_the_log(guarded_server: Server) -> None:
    assert KEYS[0] not in repr(Settings(api_keys=KEYS[0]))
    assert not any(key in guarded_server.log.read_text() for key in KEYS)


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the first client\n{KEYS[0]}\n\n{KEYS[1]}\n")

    keys = Keys.read(f"@{file}")

    assert all(keys.allow([(b"x-api-key", key.encode())]) for key in KEYS)
    assert not keys.allow([(b"x-api-key", b"# the first client")])


@pytest.mark.parametrize("text", ["short", "with a space in it", f"{KEYS[0]},", "@/nowhere/keys", "ä" * 20])
def test_bad_keys_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(HalftoneError, match="HALFTONE_API_KEYS"):
        Settings(api_keys=text)


@pytest.mark.parametrize("text", ["a-secret-that-starts-with-at", f"{KEYS[0]}\n" * 100, f"{KEYS[0]}\0"])
def test_what_stands_in_place_of_a_file_of_keys_is_not_shown(text: str) -> None:
    with pytest.raises(HalftoneError, match="that @ names") as error:
        Settings(api_keys=f"@{text}")

    assert text.splitlines()[0] not in str(error.value)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "", "0.0001", "1_0", "0x10", "١"])
def test_a_timeout_that_is_none_is_refused(server: Server, value: str) -> None:
    headers = {"X-Request-Timeout": value.encode()}
    infer = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [""]}]}

    assert server.post("/classify", content=CAT, headers=headers).status_code == 422
    assert server.post("/v2/models/efficientnet_lite0/infer", json=infer, headers=headers).status_code == 422


def test_a_client_can_shorten_its_deadline(server: Server) -> None:
    short = server.post("/classify", content=CAT, headers={"X-Request-Timeout": "0.001"})
    enough = server.post("/classify", content=CAT, headers={"X-Request-Timeout": "60.5"})

    assert (short.status_code, short.json()["error"]["code"]) == (504, "deadline_passed")
    assert enough.status_code == 200


@given(st.floats(0.001, 1e300) | st.integers(1, 10**30), st.floats(0.01, 100))
def test_a_client_can_never_lengthen_it(wanted: float, most: float) -> None:
    assert allowed_seconds(str(wanted), most) == min(float(wanted), most)


@given(st.text(max_size=30))
@example("0\x1f")
@example("1\x1f")
def test_any_text_is_a_number_or_refused(text: str) -> None:
    with contextlib.suppress(RequestError):
        assert 0 < allowed_seconds(text, 10) <= 10


@pytest.mark.parametrize("start", [b"\r\n", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_a_slow_head_is_closed(guarded_server: Server, start: bytes) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(start)
        status, headers, body = answer(connection)
        assert (status, code(body), headers["connection"]) == (408, "head_too_slow", "close")
        assert connection.recv(1) == b""


def test_a_connection_without_a_request_is_closed(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        assert connection.recv(1) == b""


def test_a_head_that_trickles_is_closed_too(guarded_server: Server) -> None:
    with connected(guarded_server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        for byte in b"X-Slow: " + b"x" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
        raise AssertionError("the connection was never closed")


def test_a_second_request_on_a_connection_has_the_same_time(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection)[0] == 200
        connection.sendall(b"GET /li")
        assert answer(connection)[0] == 408


def test_a_body_that_follows_its_answer_slowly_is_closed(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert answer(connection)[0] == 401
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x")
                time.sleep(0.02)
            raise AssertionError("the connection was never closed")


def test_a_large_head_is_refused(guarded_server: Server) -> None:
    many = "".join(f"X-{number}: 1\r\n" for number in range(200))
    with connected(guarded_server) as connection:
        connection.sendall(f"GET /livez HTTP/1.1\r\nHost: x\r\n{many}\r\n".encode())
        status, _, body = answer(connection)

    assert (status, code(body)) == (431, "head_too_large")


def test_an_endless_head_is_refused(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"x" * 65536)
            raise AssertionError("the head was read to no end")


@pytest.mark.parametrize(
    "start",
    [
        b"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\nX: ",
    ],
    ids=["trailer", "trailer after the answer", "chunk extension", "next head"],
)
def test_what_is_neither_body_nor_a_whole_head_has_an_end(guarded_server: Server, start: bytes) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(start.replace(b"%s", KEYS[0].encode()))
        sent = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(400):
                sent += connection.send(b"x" * 65536)
        assert sent < 400 * 65536


def test_the_end_of_a_body_that_was_refused_is_no_head(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        assert answer(connection)[0] == 401
        connection.sendall(b"cd")
        assert connection.recv(1) == b""


def test_what_follows_a_running_request_is_not_answered_in_its_place(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        head = f"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEYS[0]}\r\nContent-Length: {len(CAT)}\r\n\r\n"
        connection.sendall(head.encode() + CAT + b"HELO x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"bad_http" not in connection.recv(65536)


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00", b"HELO x\r\n\r\n", b"GET /\xff HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_refused_like_everything_else(guarded_server: Server, data: bytes) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(data)
        status, headers, body = answer(connection)

    assert (status, code(body), headers["content-type"]) == (400, "bad_http", "application/json")


def test_too_many_connections_get_503_and_health_is_served(guarded_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        refused = None
        # The service closes them after half a second: the next connection may find room.
        for _ in range(200):
            for _ in range(CONNECTIONS + 5):
                stack.enter_context(connected(guarded_server))
            with connected(guarded_server) as last:
                last.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert answer(last)[0] == 200
                last.sendall(f"GET /models HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEYS[0]}\r\n\r\n".encode())
                refused = answer(last)
            stack.close()
            if refused[0] == 503:
                break
    assert refused is not None
    assert (refused[0], code(refused[2]), refused[1]["retry-after"]) == (503, "too_many_connections", "1")
    wait_until(lambda: guarded_server.get("/models", headers=KEY).status_code == 200, "there was room again")


def test_all_bodies_together_are_limited(guarded_server: Server) -> None:
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEYS[0]}\r\nContent-Length: 900000\r\n\r\n".encode()
    body = CAT + bytes(900_000 - len(CAT))
    with connected(guarded_server) as one, connected(guarded_server) as two:
        one.sendall(head + body[:800_000])
        # There is no sign that the service has read it.
        time.sleep(0.3)
        two.sendall(head + body)
        status, headers, text = answer(two)
        assert (status, code(text), headers["retry-after"]) == (429, "too_many_requests", "1")
        one.sendall(body[800_000:])
        assert answer(one)[0] == 200
        two.sendall(head + body)
        assert answer(two)[0] == 200


def test_memory_is_given_back_whatever_happened() -> None:
    memory = BodyBudget(10)
    first, second = (RequestBody(lambda: None, memory) for _ in range(2))  # type: ignore[arg-type, return-value]

    assert first.hold(6)
    assert not second.hold(6)
    assert second.hold(4)
    first.release()
    first.release()
    assert memory.held == 4
    assert second.hold(6)


GET = b"GET /v2/models/efficientnet_lite0 HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\n\r\n" % KEYS[0].encode()
POST = GET.replace(b"GET /v2/models/efficientnet_lite0", b"POST /classify").replace(
    b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n%s" % (len(CAT), CAT)
)


def test_pipelined_requests_are_answered_in_their_order(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(POST * 3 + GET + POST + GET * 2)
        answers = [answer(connection) for _ in range(7)]

    assert [status for status, _, _ in answers] == [200] * 7
    assert ["predictions" in json.loads(body) for _, _, body in answers] == [
        True,
        True,
        True,
        False,
        True,
        False,
        False,
    ]


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAA\r\n"
CHUNKED = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (9, CAT[:9], len(CAT) - 9, CAT[9:])
FROM_JAVA = POST.replace(b"Host: a\r\n", b"Host: a\r\n" + OFFER)
FROM_JAVA_CHUNKED = FROM_JAVA.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED


@pytest.mark.parametrize("request_", [FROM_JAVA, FROM_JAVA_CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("piece", [None, 1, 37], ids=["whole", "bytes", "pieces"])
def test_an_offer_of_http_2_is_ignored(guarded_server: Server, request_: bytes, piece: int | None) -> None:
    head = request_.index(b"\r\n\r\n") + 20
    with connected(guarded_server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, head, piece or head):
            connection.sendall(request_[start : min(start + (piece or head), head)])
        connection.sendall(request_[head:])
        first = answer(connection)
        connection.sendall(request_ * 2 + GET)
        rest = [answer(connection) for _ in range(3)]

    assert [status for status, _, _ in [first, *rest]] == [200] * 4
    assert ["predictions" in json.loads(body) for _, _, body in [first, *rest]] == [True, True, True, False]
    assert "upgrade" not in first[1]


def test_a_client_that_pipelines_and_does_not_read_is_cut(guarded_server: Server) -> None:
    with connected(guarded_server) as connection:
        connection.sendall(GET * MAX_PIPELINED)
        assert [answer(connection)[0] for _ in range(MAX_PIPELINED)] == [200] * MAX_PIPELINED
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(GET * 1_000)
        with contextlib.suppress(ConnectionError):
            while connection.recv(2**16):
                pass

    assert guarded_server.get("/livez").status_code == 200
    assert 'reason="too_many_pipelined"' in guarded_server.get("/metrics", headers=KEY).text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"ready":' + b"[0," * 2**18 + b"0]}", 413),
        (b'{"ready":[' + b"{}," * 2**17 + b"{}]}", 413),
        (b'{"ready":' + b"9" * 641 + b"}", 400),
        (b'{"ready":' + b"[" * 2**17, 400),
        (b'{"ready":true}'.ljust(2**20), 200),
    ],
    ids=["values", "objects", "digits", "nesting", "spaces"],
)
@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/models/efficientnet_lite0/infer"])
def test_json_is_parsed_within_one_limit(guarded_server: Server, path: str, body: bytes, status: int) -> None:
    response = guarded_server.post(path, content=body, headers=KEY)

    assert response.status_code == (400 if status == 200 and path.endswith("infer") else status)


ORIGIN = {"Origin": "https://page.example"}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}


def test_pages_of_allowed_origins_may_ask(guarded_server: Server) -> None:
    asked = guarded_server.request("OPTIONS", "/classify", headers=ORIGIN | PREFLIGHT)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert {"content-type", "x-api-key"} <= set(asked.headers["access-control-allow-headers"].lower().split(", "))

    for headers, status in ((KEY, 200), ({}, 401)):
        response = guarded_server.post("/classify", content=CAT, headers=ORIGIN | headers)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, ORIGIN["Origin"])
        assert "Retry-After" in response.headers["access-control-expose-headers"]


def test_pages_of_other_origins_may_not(guarded_server: Server, server: Server) -> None:
    other = {"Origin": "https://page.example.evil"}

    assert guarded_server.request("OPTIONS", "/classify", headers=other | PREFLIGHT).status_code == 400
    assert "access-control-allow-origin" not in guarded_server.get("/livez", headers=other).headers
    # By default, no page may.
    assert server.request("OPTIONS", "/classify", headers=ORIGIN | PREFLIGHT).status_code == 405
    assert "access-control-allow-origin" not in server.get("/livez", headers=ORIGIN).headers


@pytest.mark.parametrize("origins", ["page.example", "https://page.example/path", "https://a b", "ftp://x"])
def test_origins_must_be_origins(origins: str) -> None:
    with pytest.raises(HalftoneError, match=r"HALFTONE_CORS_ORIGINS must be .* such as https://example.org"):
        Settings(cors_origins=origins)
