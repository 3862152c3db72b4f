"""Request ids and the lines of the request log."""

import io
import json
import logging
import re
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry import request_log as log
from serving.telemetry.request_context import Call, request_id
from serving.telemetry.request_log import JsonFormatter, RequestLog
from tests.servers import PHOTOS, Server, wait_until

CAT = (PHOTOS / "cat.jpg").read_bytes()


def lines_of(server: Server, identity: str) -> list[str]:
    """Return the log's lines for a request; they are written a little later than the response."""
    wait_until(lambda: identity in server.log.read_text(), f"{identity} was logged")
    return [line for line in server.log.read_text().splitlines() if identity in line]


def test_a_well_formed_id_comes_back_and_names_the_line(server: Server) -> None:
    response = server.post("/classify", content=CAT, headers={"X-Request-Id": "Order:7/a=1"})

    assert response.headers["x-request-id"] == "Order:7/a=1"
    (line,) = lines_of(server, "Order:7/a=1")
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 event=request request_id=Order:7/a=1 ", line)
    assert "route=/classify status=200 milliseconds=" in line
    assert re.search(rf"model=efficientnet_lite0 variant=[\w-]+ items=1 bytes={len(CAT)}$", line)


@pytest.mark.parametrize(
    "sent", ["", "a b", 'a"b', "a'b", "a\\b", "x" * 129, "é".encode(), b"a\tb", None], ids=lambda sent: repr(sent)[:12]
)
def test_any_other_id_is_replaced(server: Server, sent: str | bytes | None) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent}

    response = server.get("/livez") if sent is None else server.get("/livez", headers=headers)

    assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


def test_errors_carry_an_id_and_their_code_is_logged(server: Server) -> None:
    headers = {"X-Request-Id": "bad-picture"}
    response = server.post("/classify", content=b"no picture", headers=headers)

    assert response.headers["x-request-id"] == "bad-picture"
    (line,) = lines_of(server, "bad-picture")
    assert "status=400" in line
    assert line.endswith("error=not_an_image")


def test_nothing_that_a_client_wrote_is_in_the_log(server: Server) -> None:
    server.post(
        "/secret-path%0Aforged=1?token=secret-query",
        content=CAT + b"secret-body",
        headers={"User-Agent": "secret-agent", "Authorization": "secret-key", "X-Request-Id": "clean"},
    )

    (line,) = lines_of(server, "clean")
    assert "route=other status=404" in line
    assert "secret" not in server.log.read_text()
    assert "\nforged" not in server.log.read_text()


@given(st.binary(max_size=200))
def test_an_id_never_breaks_a_line_or_a_field(value: bytes) -> None:
    identity = request_id([(b"x-request-id", value)])

    assert 1 <= len(identity) <= 128
    assert all("!" <= character <= "~" and character not in "\"'\\" for character in identity)


@given(st.text(), st.text())
def test_a_line_of_json_is_one_object_whatever_is_in_it(model: str, error: str) -> None:
    stream = io.StringIO()
    requests = RequestLog("json", stream)
    requests.add(Call("id-1", "/classify", 200, model=model, items=2, received=10, error=error), 0.0125)
    requests.close()

    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert datetime.fromisoformat(fields.pop("time")).utcoffset() is not None
    assert fields == {
        "event": "request",
        "request_id": "id-1",
        "route": "/classify",
        "status": 200,
        "milliseconds": 12.5,
        "model": model,
        "variant": "",
        "items": 2,
        "bytes": 10,
        "error": error,
        "trace_id": "",
    }


def test_what_a_slow_reader_leaves_no_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST_WAITING", 3)
    stream = io.StringIO()
    requests = RequestLog("json", stream)
    with requests._writing:
        for _ in range(10):
            requests.add(Call("x", "/livez", 200), 0.001)
    requests.close()

    written = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sum(line["event"] == "request" for line in written) == 3
    assert [line["count"] for line in written if line["event"] == "lines_dropped"] == [7]


class FullDisk(io.StringIO):
    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_failed_write_loses_its_lines_says_so_and_the_log_goes_on() -> None:
    stream = FullDisk()
    requests = RequestLog("json", stream)
    requests.add(Call("x", "/livez", 200), 0.001)
    wait_until(lambda: not requests._waiting and requests._dropped == 1, "the failed write")
    stream.full = False
    requests.add(Call("y", "/livez", 200), 0.001)
    wait_until(lambda: stream.getvalue().count("\n") == 2, "the lines after it")
    requests.close()

    request, dropped = (json.loads(line) for line in stream.getvalue().splitlines())
    assert request["request_id"] == "y"
    assert (dropped["event"], dropped["count"]) == ("lines_dropped", 1)


def test_other_records_are_one_line_of_json_too() -> None:
    try:
        raise ValueError('two\nlines and "quotes"')
    except ValueError:
        record = logging.LogRecord("bentoml", logging.ERROR, "x", 1, "failed on\n%s", ("a\nb",), sys.exc_info())

    text = JsonFormatter().format(record)
    fields = json.loads(text)
    assert "\n" not in text
    assert (fields["level"], fields["message"]) == ("error", "failed on\na\nb")
    assert 'ValueError: two\nlines and "quotes"' in fields["exception"]
