"""Compose, Prometheus and Grafana: valid files, and queries over metrics and labels that a real server exposes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser
import pytest
import yaml
from compose_spec import PyCompose
from prometheus_client.parser import text_string_to_metric_families

from models.bundle.drift import MEASURES, Profile
from serving.telemetry.recorder import Recorder
from tests.servers import PHOTOS, ROOT, Server

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "halftone.json").read_text())
ADDED_BY_PROMETHEUS = {"job", "instance"}
OF_PROMETHEUS = {"up"}
# A histogram's name in a query is that of one of its parts.
PART = re.compile(r"_(bucket|sum|count)$")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every query of a panel, an alert, an autoscaler, and of the documentation's examples."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    alerts = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    scaled = yaml.safe_load((DEPLOY / "kubernetes" / "autoscaling-queue.yaml").read_text())
    scaling = [each["metadata"]["query"] for each in scaled["spec"]["triggers"] if "query" in each["metadata"]]
    return [_plain(query) for query in [*shown, *alerts, *scaling]]


def _plain(query: str) -> str:
    """Grafana's variables replaced by what it puts in their place."""
    return query.replace("$__rate_interval", "1m").replace("$model", ".*")


def selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    """Name of the metric and labels of every selector in a parsed query; grouping labels count for all below."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
        return
    groups: set[str] = (
        set(node.modifier.labels) if isinstance(node, promql_parser.AggregateExpr) and node.modifier else set()
    )
    for child in _children(node):
        for name, labels in selectors(child):
            yield name, labels | groups


def _children(node: Any) -> list[Any]:
    if isinstance(node, promql_parser.Call):
        return list(node.args)
    found = (getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector", "vs"))
    return [child for child in found if child is not None]


def labels_by_name(exposition: str) -> dict[str, set[str]]:
    """Metric name to its label names."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.fixture(scope="module")
def exposed(server: Server) -> dict[str, set[str]]:
    """Metrics of a server that has answered and refused."""
    server.post("/classify", content=(PHOTOS / "cat.jpg").read_bytes())
    server.post("/classify", content=b"no picture")
    return labels_by_name(server.get("/metrics").text)


class Queue:
    """An empty queue."""

    waiting = pending = 0


def of_options() -> dict[str, set[str]]:
    """Metrics that a server has as well with HALFTONE_SHADOW, HALFTONE_COLLECT, a candidate, and a proof on labels."""
    recorder = Recorder()
    comparison = recorder.comparison("m", "v", min_agreement=0.99)
    comparison.announce()
    comparison.compared("agree", delta=0)
    profile = Profile.of(np.zeros((1, len(MEASURES)), np.int64), 1)
    drift = recorder.drift("m", "1", "v", profile, 1.0)
    assert drift
    drift.announce()
    recorder.collected("random")
    recorder.trial("m", "2", "v", Queue(), lambda: 0.1)
    recorder.candidate("m", "2").compared("agreement", bad=True)
    recorder.decided("m", "rolled_back", "rule")
    return labels_by_name(recorder.exposition().decode())


def test_every_query_asks_for_metrics_and_labels_that_are_there(exposed: dict[str, set[str]]) -> None:
    known = of_options() | exposed
    asked = [(query, name, labels) for query in queries() for name, labels in selectors(promql_parser.parse(query))]
    unknown = [
        (query, name, labels)
        for query, name, labels in asked
        if name not in OF_PROMETHEUS and (name not in known or labels - known[name] - ADDED_BY_PROMETHEUS)
    ]

    assert len(asked) >= len(queries()) > 20
    assert unknown == []


def test_every_metric_of_the_service_is_in_the_dashboard(exposed: dict[str, set[str]]) -> None:
    shown = {name for query in queries() for name, _ in selectors(promql_parser.parse(query))}
    ours = {
        PART.sub("", name)
        for name in of_options() | exposed
        if name.startswith("halftone_") and not name.endswith("_created")
    }

    assert ours - {PART.sub("", name) for name in shown} == set()


def test_the_dashboard_is_what_grafana_loads() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}

    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 39
    assert len(set(ids)) == len(ids)
    assert "id" not in DASHBOARD
    for panel in panels():
        assert panel["type"] in {"timeseries", "stat", "table"}
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(panel)))
        assert used <= variables


def test_the_alarm_on_a_variant_compares_decided_pictures_with_the_limit_of_its_gate() -> None:
    (expression,) = [
        rule["expr"]
        for group in RULES["groups"]
        for rule in group["rules"]
        if rule["alert"] == "HalftoneVariantDisagrees"
    ]
    names = [name for name, _ in selectors(promql_parser.parse(expression))]
    shown = (ROOT / "docs" / "observability.md").read_text()

    assert names == [*["halftone_shadow_total"] * 2, "halftone_shadow_min_agreement", "halftone_shadow_total"]
    assert set(re.findall(r'result=~?"([a-z|]+)"', expression)) == {"agree", "agree|disagree"}
    assert " ".join(expression.split()) in " ".join(shown.split())


def test_no_two_panels_lie_on_the_same_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_alerts_say_what_to_do() -> None:
    for rule in (rule for group in RULES["groups"] for rule in group["rules"]):
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))


def test_the_compose_file_is_valid() -> None:
    text = (DEPLOY / "compose.yaml").read_text()

    assert set(PyCompose.from_yaml(text).service_names()) == {"halftone", "prometheus", "grafana"}
    with pytest.raises(ValueError, match="restrat"):
        PyCompose.from_yaml(text.replace("restart:", "restrat:", 1))


def test_what_compose_mounts_is_there_and_only_this_machine_is_listened_to() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_dir() if source.startswith(".") else source in COMPOSE["volumes"]


def test_prometheus_and_grafana_find_each_other() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "halftone.yaml").read_text())["providers"]
    targets = [
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    ]

    assert [target.partition(":")[0] for target in targets] == ["halftone"]
    assert [job["job_name"] for job in config["scrape_configs"]] == ["halftone"]
    assert all((DEPLOY / "prometheus" / Path(name)).is_file() for name in config["rule_files"])
    assert source["url"] == "http://prometheus:9090"
    assert any(
        volume.split(":")[1] == provider["options"]["path"] for volume in COMPOSE["services"]["grafana"]["volumes"]
    )
