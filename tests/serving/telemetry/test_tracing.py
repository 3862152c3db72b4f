"""Spans of a real server that exports to a real collector, and with OpenTelemetry's exporter in memory."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import ASGIApp

from serving.telemetry.recorder import Recorder
from serving.telemetry.spans import Spans
from serving.telemetry.tracing import Sampled
from tests.servers import PHOTOS, QUICK, ROOT, Server, environment, serve, wait_until

CAT = (PHOTOS / "cat.jpg").read_bytes()
TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Receives spans with OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []

    def named(self, name: str, trace: str) -> list[Span]:
        return [span for span in self.spans if span.name == name and span.trace_id.hex() == trace]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def traced(artifacts: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with traces and a JSON log, which are off by default, and without metrics."""
    with serve(
        artifacts,
        tmp_path_factory.mktemp("traced") / "log",
        HALFTONE_TRACE_ENDPOINT=f"http://127.0.0.1:{collector.server_port}/v1/traces",
        HALFTONE_TRACE_SAMPLE="0",
        HALFTONE_LOG_FORMAT="json",
        HALFTONE_METRICS="0",
        OTEL_BSP_SCHEDULE_DELAY="100",
        **QUICK,
    ) as running:
        yield running


def parent(trace: str, *, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{CLIENT}-0{int(sampled)}"}


def test_the_stages_are_children_of_the_request_which_is_the_clients(traced: Server, collector: Collector) -> None:
    traced.post("/classify", content=CAT, headers=parent(TRACE))

    wait_until(lambda: bool(collector.named("POST /classify", TRACE)), "the request's span was exported")
    (request,) = collector.named("POST /classify", TRACE)
    assert request.parent_span_id.hex() == CLIENT
    for name in ("decode", "infer"):
        (span,) = collector.named(name, TRACE)
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano + 5_000_000
        assert span.start_time_unix_nano < span.end_time_unix_nano
        attributes = {each.key: each.value for each in span.attributes}
        assert attributes["halftone.model"].string_value == "efficientnet_lite0"
        assert attributes["halftone.items"].int_value == 1
    assert len(collector.named("queue", TRACE)) == 2


def test_every_picture_of_a_batch_is_decoded_in_its_trace(traced: Server, collector: Collector) -> None:
    trace = "11112222333344445555666677778888"
    traced.post("/classify_batch", files=[("images", CAT)] * 3, headers=parent(trace))

    wait_until(lambda: bool(collector.named("POST /classify_batch", trace)), "the request's span was exported")
    assert len(collector.named("decode", trace)) == 3
    items = [each.value.int_value for span in collector.named("infer", trace) for each in span.attributes]
    assert sum(items) == 3


def test_a_request_that_is_not_sampled_leaves_no_span(traced: Server, collector: Collector) -> None:
    unsampled = "99990000999900009999000099990000"
    traced.post("/classify", content=CAT, headers=parent(unsampled, sampled=False))
    traced.post("/classify", content=CAT)
    last = "aaaabbbbccccddddeeeeffff00001111"
    traced.post("/classify", content=CAT, headers=parent(last))

    wait_until(lambda: bool(collector.named("POST /classify", last)), "the last request's span was exported")
    traces = {span.trace_id.hex() for span in collector.spans}
    assert unsampled not in traces
    assert len(traces) <= 3


def test_a_client_that_leaves_ends_its_request(traced: Server) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", int(traced.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf")

    wait_until(lambda: traced.log.read_text().count('"status":499') >= 5, "the requests were over")
    assert traced.get("/livez").status_code == 200


def test_a_traced_request_does_not_pass_the_timers_of_bentoml(artifacts: Path) -> None:
    program = (
        "from serving.service import HalftoneService; app = HalftoneService.to_asgi();"
        "print(*(type(each).__name__ for each in (app, app._spanned, app._app, app._app._app)))"
    )
    settings = environment(artifacts, HALFTONE_TRACE_ENDPOINT="http://127.0.0.1:9/v1/traces")

    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=settings, capture_output=True, text=True, check=True
    )

    assert result.stdout.split()[-4:] == ["Sampled", "OpenTelemetryMiddleware", "Monitor", "Gateway"]


async def traced_way(share: float, headers: list[tuple[bytes, bytes]], path: str = "/classify") -> bool:
    """Return True if a request with these headers is traced."""
    ways: list[bool] = []

    def way(traced: bool) -> ASGIApp:
        async def app(scope: object, receive: object, send: object) -> None:
            ways.append(traced)

        return app

    async def unused(message: object = None) -> dict[str, object]:
        raise AssertionError(message)

    await Sampled(way(False), way(True), share=share)(
        {"type": "http", "path": path, "headers": headers}, unused, unused
    )
    (found,) = ways
    return found


@given(share=st.floats(0, 1), flags=st.integers(0, 255), trace=st.integers(1, 2**128 - 1))
def test_the_clients_traceparent_decides(share: float, flags: int, trace: int) -> None:
    header = b"00-%032x-00f067aa0ba902b7-%02x" % (trace, flags)

    assert asyncio.run(traced_way(share, [(b"accept", b"*/*"), (b"traceparent", header)])) == bool(flags & 1)


@pytest.mark.parametrize(
    "headers",
    [[], [(b"traceparent", b"00-0-0-01")], [(b"traceparent", b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01")]],
)
@pytest.mark.parametrize("share", [0, 1])
def test_without_a_valid_one_the_share_decides(share: int, headers: list[tuple[bytes, bytes]]) -> None:
    assert asyncio.run(traced_way(share, headers)) == bool(share)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"])
def test_health_checks_and_scrapes_are_never_traced(path: str) -> None:
    header = f"00-{TRACE}-{CLIENT}-01".encode()

    assert not asyncio.run(traced_way(1, [(b"traceparent", header)], path))


def test_a_json_log_is_json_from_its_first_line(traced: Server) -> None:
    lines = [json.loads(line) for line in traced.log.read_text().splitlines()]

    assert lines[0]["message"].startswith("bundles: /")
    assert any(line.get("message", "").startswith("Starting production HTTP") for line in lines)


def test_a_json_log_has_the_errors_of_the_start_too(tmp_path: Path) -> None:
    settings = environment(tmp_path, HALFTONE_MODEL="nope", HALFTONE_LOG_FORMAT="json")
    command = [sys.executable, "-m", "bentoml", "serve"]

    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)

    assert result.returncode == 2
    (line,) = map(json.loads, (result.stdout + result.stderr).splitlines())
    assert (line["level"], line["message"].startswith("there is no bundle")) == ("error", True)


def test_a_json_log_names_the_trace(traced: Server) -> None:
    traced.post("/classify", content=CAT, headers=parent(TRACE) | {"X-Request-Id": "traced-1"})
    wait_until(lambda: "traced-1" in traced.log.read_text(), "the request was logged")

    lines = [line for line in traced.log.read_text().splitlines() if "traced-1" in line]
    fields = json.loads(lines[0])
    assert (fields["trace_id"], fields["status"], fields["bytes"]) == (TRACE, 200, len(CAT))
    # The worker's other lines have the same form: the model's name was logged when it was ready.
    ready = [json.loads(line) for line in traced.log.read_text().splitlines() if '"message":"ready: ' in line]
    assert [line["logger"] for line in ready] == ["bentoml.halftone"]
    assert "try it" not in traced.log.read_text()


def test_metrics_can_be_off(traced: Server) -> None:
    response = traced.get("/metrics")

    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert "HALFTONE_METRICS" in response.json()["error"]["message"]


@pytest.fixture
def memory() -> tuple[TracerProvider, InMemorySpanExporter]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def test_a_batch_of_several_requests_shows_in_each_of_their_traces(
    memory: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = memory
    recorder = Recorder()
    recorder.trace(Spans(provider))
    model = recorder.model("m", "1", "v")
    parents = []
    for _ in range(2):
        with provider.get_tracer("test").start_as_current_span("request"):
            parents.append(model.begin(1))
    exporter.clear()

    model.ran(0.25, [parents[0], parents[0], None, parents[1]])

    spans = exporter.get_finished_spans()
    assert [(span.name, span.attributes["halftone.items"]) for span in spans if span.attributes] == [("infer", 4)] * 2
    assert len({span.context.trace_id for span in spans if span.context}) == 2
    assert all(span.end_time - span.start_time == 250_000_000 for span in spans if span.end_time and span.start_time)


def test_without_a_trace_nothing_is_made(memory: tuple[TracerProvider, InMemorySpanExporter]) -> None:
    provider, exporter = memory
    recorder = Recorder()
    assert recorder.model("m", "1", "v").begin(1) is None
    recorder.trace(Spans(provider))
    model = recorder.model("m", "1", "v")

    assert model.begin(1) is None
    model.waited(0.1, None, 0.1)
    model.prepared(0.1, None)
    model.ran(0.1, [None])

    assert exporter.get_finished_spans() == ()
