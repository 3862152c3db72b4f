"""Requests to bytes, and bytes to responses, however the stream is cut."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.client.http1 import MalformedResponseError, Response, Responses, encode_request, get, post

BODILESS = (204, 304)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"


@st.composite
def responses(draw: st.DrawFn) -> tuple[Response, bytes]:
    """A response and its bytes: with a length, in chunks, or without a body; perhaps after an interim response."""
    status = draw(st.integers(200, 599))
    body = b"" if status in BODILESS else draw(st.binary(max_size=200))
    response = Response(status, body, keep_alive=draw(st.booleans()))
    head = [f"HTTP/1.1 {status} Some Reason", *([] if response.keep_alive else ["Connection: close"])]
    if status in BODILESS:
        data = "\r\n".join([*head, "", ""]).encode()
    elif draw(st.booleans()):
        data = "\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body
    else:
        edges = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=3))})
        pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
        chunks = b"".join(b"%X;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        data = "\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode() + chunks + b"0\r\n\r\n"
    return response, draw(st.sampled_from([b"", INTERIM])) + data


@settings(deadline=None)
@given(st.lists(responses(), max_size=5), st.data())
def test_responses_survive_any_cut_of_the_stream(sent: list[tuple[Response, bytes]], data: st.DataObject) -> None:
    stream = b"".join(encoded for _, encoded in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    reader = Responses()

    received = [
        response
        for start, end in itertools.pairwise([0, *cuts, len(stream)])
        for response in reader.feed(stream[start:end])
    ]

    # The response that closes the connection is the last one.
    closing = next((number for number, (response, _) in enumerate(sent, 1) if not response.keep_alive), len(sent))
    assert received == [response for response, _ in sent[:closing]]


@settings(deadline=None)
@given(st.lists(responses().filter(lambda each: each[0].keep_alive), max_size=5), st.integers(1, 64))
def test_responses_survive_pieces_of_any_size(sent: list[tuple[Response, bytes]], size: int) -> None:
    stream = b"".join(encoded for _, encoded in sent)
    reader = Responses()

    received = [
        response for start in range(0, len(stream), size) for response in reader.feed(stream[start : start + size])
    ]

    assert received == [response for response, _ in sent]


def test_headers_are_found_by_their_name_in_lower_case() -> None:
    (response,) = Responses().feed(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")

    assert response.headers == {b"retry-after": b"1", b"content-length": b"0"}


def test_the_response_to_a_head_request_ends_with_its_head() -> None:
    (response,) = Responses(bodiless=True).feed(INTERIM + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    assert (response.status, response.body) == (200, b"")


@pytest.mark.parametrize(("head", "keep_alive"), [("HTTP/1.1 200 OK", True), ("HTTP/1.0 200 OK", False)])
def test_only_newer_connections_live_on_without_a_header(head: str, keep_alive: bool) -> None:
    (response,) = Responses().feed(f"{head}\r\nContent-Length: 0\r\n\r\n".encode())

    assert response.keep_alive is keep_alive


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody without an end",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nendless: " + b"x" * 70_000,
    ],
)
def test_what_is_no_response_is_refused(stream: bytes) -> None:
    with pytest.raises(MalformedResponseError):
        Responses().feed(stream)


def test_requests_are_what_a_server_reads() -> None:
    assert get("/readyz") == b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    head, _, body = post("/classify", b"picture", media_type="image/jpeg", keep_alive=False).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /classify HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: 127.0.0.1",
        b"Content-Type: image/jpeg",
        b"Connection: close",
        b"Content-Length: 7",
    }
    assert body == b"picture"
    assert b"Content-Length: 0" in encode_request("POST", "/", host="x", headers={})
