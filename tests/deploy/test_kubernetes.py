"""The manifests: valid by Kubernetes' own schemas, consistent with each other, and with the service's settings."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serving.api.app import Api
from serving.settings import Settings
from tests.servers import ROOT
from tests.test_packaging import PROJECT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.37")
FOREIGN = {"ScaledObject", "Kustomization"}
"""Kinds that Kubernetes itself doesn't know."""

# What KEDA 2 asks of a ScaledObject, as far as it is used here: keda.sh/docs, "ScaledObject specification".
COUNT = {"type": "integer", "minimum": 0}
TRIGGERS = {
    "prometheus": {"required": ["serverAddress", "query", "threshold"]},
    "cpu": {"required": ["value"]},
}
SCALED_OBJECT: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"]},
                "pollingInterval": COUNT,
                "cooldownPeriod": COUNT,
                "minReplicaCount": COUNT,
                "maxReplicaCount": COUNT,
                "fallback": {"type": "object", "required": ["failureThreshold", "replicas"]},
                "advanced": {"type": "object", "properties": {"horizontalPodAutoscalerConfig": {"type": "object"}}},
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"enum": list(TRIGGERS)},
                            "metricType": {"enum": ["AverageValue", "Value", "Utilization"]},
                            # KEDA refuses numbers: every value of a trigger is text.
                            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                        },
                    },
                },
            },
        },
    },
}


def manifests() -> dict[str, dict[str, Any]]:
    """File name to the object in it."""
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (each for each in manifests().values() if each["kind"] == kind)
    return found


def container() -> dict[str, Any]:
    (found,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [name for name, each in manifests().items() if each["kind"] not in FOREIGN])
def test_it_is_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(manifests()[name], version, strict=True)


def test_the_validation_sees_a_mistake() -> None:
    wrong = manifests()["deployment.yaml"]
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_scaled_object_is_what_keda_reads() -> None:
    scaled = of_kind("ScaledObject")

    jsonschema.validate(scaled, SCALED_OBJECT)
    for trigger in scaled["spec"]["triggers"]:
        assert set(TRIGGERS[trigger["type"]]["required"]) <= set(trigger["metadata"])
        assert float(trigger["metadata"].get("threshold", 1)) < Settings().queue


def test_kustomize_takes_every_file_but_one_of_the_two_autoscalers() -> None:
    files = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml", "autoscaling-queue.yaml"}

    assert set(of_kind("Kustomization")["resources"]) == files


def test_everything_selects_the_pods_of_the_deployment() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]

    assert of_kind("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        assert of_kind(kind)["spec"]["scaleTargetRef"]["name"] == of_kind("Deployment")["metadata"]["name"]
    assert "replicas" not in of_kind("Deployment")["spec"]


def test_ports_are_called_by_a_name_that_exists() -> None:
    names = {port["name"] for port in container()["ports"]}

    assert {port["targetPort"] for port in of_kind("Service")["spec"]["ports"]} <= names
    assert {port["port"] for rule in of_kind("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]} <= names
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container()[probe]["httpGet"]["port"] in names
        assert container()[probe]["httpGet"]["path"] in Api(Settings()).paths


def test_the_pod_has_no_rights() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["automountServiceAccountToken"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} == set(container()["resources"]["limits"]) == set(container()["resources"]["requests"])


def test_a_stop_waits_for_every_request_that_was_accepted() -> None:
    settings = Settings()
    (_, seconds) = container()["lifecycle"]["preStop"]["exec"]["command"]
    longest = float(seconds) + settings.body_timeout + settings.deadline + getattr(settings, "lame_duck", 0)
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["halftone"]

    assert pod["terminationGracePeriodSeconds"] > longest
    assert float(compose["stop_grace_period"].removesuffix("s")) > longest


def test_its_settings_are_settings_of_the_service() -> None:
    variables = {each["name"]: each["value"] for each in container()["env"]}
    composed = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["halftone"]["environment"]

    assert Settings.from_environment(variables).log_format == "json"
    assert Settings.from_environment(composed).log_format == "json"


def test_the_image_has_the_version_of_the_project() -> None:
    image = f"halftone:{PROJECT['version']}"

    assert container()["image"] == image
    assert of_kind("Kustomization")["images"] == [
        {"name": "halftone", "newName": "halftone", "newTag": PROJECT["version"]}
    ]
    assert image in (ROOT / "deploy" / "compose.yaml").read_text()
    assert image in (ROOT / "docs" / "deploy.md").read_text()


def test_the_guide_names_every_file() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()

    assert [path.name for path in [*FOLDER.iterdir(), Path("compose.yaml")] if path.name not in guide] == []
