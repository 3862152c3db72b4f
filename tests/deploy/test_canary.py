"""Two versions with many replicas: a route that is valid by the Gateway API's types, between Services that exist."""

from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.test_kubernetes import of_kind
from tests.servers import ROOT

FOLDER = ROOT / "deploy" / "canary"
ROUTE = yaml.safe_load((FOLDER / "route.yaml").read_text())
OVERLAY = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())

NAME = {"type": "string", "minLength": 1, "maxLength": 253}


def of(required: list[str], **properties: Any) -> dict[str, Any]:
    """The schema of an object without other members."""
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def listed(items: dict[str, Any], least: int = 1, most: int = 16) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "maxItems": most, "items": items}


# What an HTTPRoute of gateway.networking.k8s.io/v1 is, as far as it is used here: apis/v1/httproute_types.go of
# github.com/kubernetes-sigs/gateway-api.
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
HEADER = of(["name", "value"], type={"enum": ["Exact", "RegularExpression"]}, name=NAME, value={"type": "string"})
BACKEND = of(["name"], name=NAME, port=PORT, weight={"type": "integer", "minimum": 0, "maximum": 1_000_000})
HTTP_ROUTE = of(
    [],
    parentRefs=listed(of(["name"], name=NAME, namespace=NAME, sectionName=NAME), most=32),
    hostnames=listed(NAME),
    rules=listed(of([], matches=listed(of([], headers=listed(HEADER)), most=64), backendRefs=listed(BACKEND))),
)


def test_the_route_is_what_a_gateway_reads() -> None:
    jsonschema.validate(ROUTE["spec"], HTTP_ROUTE)

    assert (ROUTE["apiVersion"], ROUTE["kind"]) == ("gateway.networking.k8s.io/v1", "HTTPRoute")


@pytest.mark.parametrize(("member", "value"), [("weight", "5"), ("weights", 5), ("weight", -1)])
def test_the_validation_sees_a_mistake(member: str, value: object) -> None:
    wrong = {"rules": [{"backendRefs": [{"name": "halftone", "port": 80, member: value}]}]}

    with pytest.raises(jsonschema.ValidationError, match=str(value)):
        jsonschema.validate(wrong, HTTP_ROUTE)


def test_the_route_leads_to_the_services_of_both_versions() -> None:
    service = of_kind("Service")
    names = {service["metadata"]["name"], service["metadata"]["name"] + OVERLAY["nameSuffix"]}
    (port,) = service["spec"]["ports"]
    backends = [backend for rule in ROUTE["spec"]["rules"] for backend in rule["backendRefs"]]

    assert {backend["name"] for backend in backends} == names
    assert {backend["port"] for backend in backends} == {port["port"]}
    assert sum(backend["weight"] for backend in ROUTE["spec"]["rules"][-1]["backendRefs"]) == 100


def test_the_two_versions_do_not_select_each_other_s_pods() -> None:
    (labels,) = OVERLAY["labels"]
    stable = of_kind("Deployment")["spec"]["selector"]["matchLabels"]

    assert OVERLAY["resources"] == ["../kubernetes"]
    assert labels["includeSelectors"]
    assert set(labels["pairs"]) <= set(stable)
    assert stable | labels["pairs"] != stable
    assert OVERLAY["images"][0]["name"] == of_kind("Kustomization")["images"][0]["name"]
    assert OVERLAY["images"] != of_kind("Kustomization")["images"]


def test_the_guide_names_every_file() -> None:
    guide = (ROOT / "docs" / "canary.md").read_text()

    assert [path.name for path in FOLDER.iterdir() if path.name not in guide] == []
