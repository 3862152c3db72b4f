"""GET /metrics on a real server, and its documentation."""

import base64
import re
import threading

import httpx
import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.catalogue import METRICS, QUEUE_DEPTH, REJECTED_TOTAL, REQUEST_SECONDS
from serving.telemetry.metrics import MOST_SERIES, OVERFLOW, Metrics
from serving.telemetry.middleware import Routes
from tests.servers import PHOTOS, ROOT, Server, wait_until

CAT = (PHOTOS / "cat.jpg").read_bytes()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(server: Server, name: str, /, **labels: str) -> float:
    """Return the sum of all samples of a name with at least these labels."""
    found = samples(server.get("/metrics").text).items()
    return sum(value for (sample, its), value in found if sample == name and its >= labels.items())


def grown(server: Server, name: str, by: float, before: float, /, **labels: str) -> bool:
    """Return True if a sample grows by `by`; a request is counted right after its response was sent."""
    wait_until(lambda: total(server, name, **labels) >= before + by, f"{name} grew")
    return total(server, name, **labels) == before + by


def test_a_classification_shows_in_every_histogram(server: Server) -> None:
    model = {"model": "efficientnet_lite0"}
    names = ("queue_wait_seconds", "batch_items", "decode_seconds", "infer_seconds")
    before = {name: total(server, f"halftone_{name}_count", **model) for name in names}
    answered = total(server, "halftone_request_seconds_count", route="/classify", status="200", **model)

    server.post("/classify", content=CAT)

    assert grown(server, "halftone_request_seconds_count", 1, answered, route="/classify", status="200", **model)
    for name in names:
        assert total(server, f"halftone_{name}_count", **model) == before[name] + 1
    assert total(server, "halftone_queue_depth", **model) == 0


def test_a_picture_of_the_inference_protocol_goes_through_the_queue_once(server: Server) -> None:
    model = {"model": "efficientnet_lite0"}
    before = total(server, "halftone_queue_wait_seconds_count", **model)
    picture = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(CAT).decode()]}

    assert server.post("/v2/models/efficientnet_lite0/infer", json={"inputs": [picture]}).status_code == 200

    assert total(server, "halftone_queue_wait_seconds_count", **model) == before + 1


def test_a_model_is_shown_with_its_version_and_variant(server: Server) -> None:
    (model,) = server.get("/models").json()["models"]

    shown = {"name": model["name"], "version": model["version"], "variant": model["variant"]}
    assert total(server, "halftone_model_info", **shown) == 1


def test_errors_count_by_code_also_inside_a_batch(server: Server) -> None:
    before = total(server, "halftone_rejected_total", reason="not_an_image")

    server.post("/classify", content=b"no picture")
    server.post("/classify_batch", files=[("images", CAT), ("images", b"no picture"), ("images", b"nor this")])

    assert grown(server, "halftone_rejected_total", 3, before, reason="not_an_image")


def test_a_scan_adds_no_label(server: Server) -> None:
    def scan(round_: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(20):
                client.get(f"/admin/{round_}/{number}.php?q={number}")
                client.request("PROPFIND" if number % 2 else f"M{round_}{number}", "/classify")
                client.get(f"/v2/models/m{round_}-{number}/ready")
                client.post(f"/classify?model=m{round_}-{number}", content=CAT)
                client.get("/models", headers={"X-Request-Id": f"id-{round_}-{number}", "User-Agent": f"u{number}"})

    scan(0)
    first = {key for key in samples(server.get("/metrics").text) if key[0].startswith("halftone_")}
    scan(1)
    second = {key for key in samples(server.get("/metrics").text) if key[0].startswith("halftone_")}

    # GET /metrics itself is counted after its response.
    assert {key for key in second - first if ("route", "/metrics") not in key[1]} == set()
    assert total(server, "halftone_request_seconds_count", route="other", status="404") >= 40


def test_the_process_is_described_and_bentoml_adds_nothing(server: Server) -> None:
    text = server.get("/metrics").text

    assert "process_resident_memory_bytes" in text
    assert "bentoml" not in text


def test_the_document_lists_exactly_the_metrics_that_there_are() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `halftone_")]

    shown = [(row[0].strip("| `"), row[1], tuple(re.findall(r"`(\w+)`", row[2])), row[3]) for row in rows]
    assert shown == [(each.name, each.kind, each.labels, each.help) for each in METRICS]
    assert all(len(row[4].strip(" |")) > 20 for row in rows)


def test_the_document_queries_only_metrics_that_there_are() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    known = {each.name for each in METRICS}

    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bhalftone_\w+", text)}
    assert used == known


@given(st.lists(st.floats(0, 20), max_size=50))
def test_histograms_are_those_of_the_official_client(values: list[float]) -> None:
    registry = prometheus_client.CollectorRegistry()
    official = prometheus_client.Histogram(
        REQUEST_SECONDS.name, "x", REQUEST_SECONDS.labels, buckets=REQUEST_SECONDS.buckets, registry=registry
    )
    ours = Metrics()
    for value in values:
        official.labels("/classify", "200", "m").observe(value)
        ours.observe(REQUEST_SECONDS, ("/classify", "200", "m"), value)

    def of(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        found = samples(text.decode())
        return {key: pytest.approx(value) for key, value in found.items() if "request_seconds" in key[0]}

    mine = of(ours.exposition())
    theirs = of(prometheus_client.generate_latest(registry))
    assert {key for key in mine} == {key for key in theirs if not key[0].endswith("_created")}
    assert all(mine[key] == theirs[key].expected for key in mine)


def test_nothing_is_lost_between_threads() -> None:
    metrics = Metrics()

    def work() -> None:
        for _ in range(2000):
            metrics.observe(REQUEST_SECONDS, ("/classify", "200", "m"), 0.5)
            metrics.count(REJECTED_TOTAL, ("x",))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    text = metrics.exposition().decode()
    assert 'halftone_request_seconds_count{model="m",route="/classify",status="200"} 8000.0' in text
    assert 'halftone_rejected_total{reason="x"} 8000.0' in text


def test_even_a_mistake_of_ours_can_not_fill_the_memory() -> None:
    metrics = Metrics()

    for number in range(MOST_SERIES + 100):
        metrics.count(REJECTED_TOTAL, (str(number),))
        metrics.observe(REQUEST_SECONDS, (str(number), "200", ""), 0.1)

    text = metrics.exposition().decode()
    assert f'halftone_rejected_total{{reason="{OVERFLOW}"}} 100.0' in text
    assert text.count("halftone_request_seconds_count{") == MOST_SERIES + 1


def test_a_gauge_is_read_at_the_scrape() -> None:
    metrics, waiting = Metrics(), [3]
    metrics.set(QUEUE_DEPTH, ("m", "v"), lambda: waiting[0])
    waiting[0] = 7

    assert 'halftone_queue_depth{model="m",variant="v"} 7.0' in metrics.exposition().decode()


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/classify", "/classify"),
        ("/classify/", "other"),
        ("/static_content/a/b.css", "/static_content/{file}"),
        ("/v2", "/v2"),
        ("/v2/health/live", "/v2/health/live"),
        ("/v2/models/m", "/v2/models/{name}"),
        ("/v2/models/m/infer", "/v2/models/{name}/infer"),
        ("/models/m", "/models/{name}"),
        ("/models/m/x", "other"),
        ("/v2/models/m/config", "/v2/models/{name}/config"),
        ("/v2/models/stats", "/v2/models/stats"),
        ("/v2/models/m/versions/1/ready", "/v2/models/{name}/versions/{version}/ready"),
        ("/v2/models/m/versions/1", "/v2/models/{name}/versions/{version}"),
        ("/v2/models/m/versions", "other"),
        ("/v2/models/m/drop", "other"),
        ("/v2/models/m/infer/x", "other"),
        ("/v2/other", "other"),
        ("", "other"),
        ("/\n{}", "other"),
    ],
)
def test_routes_are_known_paths_or_templates(path: str, label: str) -> None:
    assert Routes(["/classify"], ["/static_content/"]).label(path) == label


@given(st.text())
def test_no_path_makes_a_label_of_its_own(text: str) -> None:
    routes = Routes(["/classify"])

    for path in (text, f"/{text}", f"/v2/{text}", f"/v2/models/{text}", f"/v2/models/{text}/infer"):
        assert routes.label(path) in {
            "/classify",
            "other",
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/repository/index",
            "/v2/models/{name}",
            "/v2/models/{name}/config",
            "/v2/models/{name}/infer",
            "/v2/models/{name}/ready",
            "/v2/models/{name}/stats",
            "/v2/models/stats",
            "/v2/models/{name}/versions/{version}",
            "/v2/models/{name}/versions/{version}/config",
            "/v2/models/{name}/versions/{version}/infer",
            "/v2/models/{name}/versions/{version}/ready",
            "/v2/models/{name}/versions/{version}/stats",
        }
