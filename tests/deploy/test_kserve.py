"""KServe's objects: valid by its published types, and a bundle served from where its storage initialiser puts it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from serving.http.connections import HEALTH
from serving.settings import Settings
from tests.deploy.test_kubernetes import VERSIONS, container
from tests.servers import PHOTOS, QUICK, ROOT, Server, serve
from tests.test_packaging import PROJECT

FOLDER = ROOT / "deploy" / "kserve"
RUNTIME = yaml.safe_load((FOLDER / "runtime.yaml").read_text())
SERVICE = yaml.safe_load((FOLDER / "inference-service.yaml").read_text())
(CONTAINER,) = RUNTIME["spec"]["containers"]
PREDICTOR = SERVICE["spec"]["predictor"]
MODEL = "efficientnet_lite0"

COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
PROTOCOL = {"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}

# What KServe 0.15 asks of the two, as far as it is used here: pkg/apis/serving of github.com/kserve/kserve.
SERVING_RUNTIME: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["containers"],
    "properties": {
        "supportedModelFormats": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": TEXT,
                    "version": TEXT,
                    "autoSelect": {"type": "boolean"},
                    "priority": {"type": "integer", "minimum": 1},
                },
            },
        },
        "protocolVersions": {"type": "array", "items": PROTOCOL},
        "multiModel": {"type": "boolean"},
        "disabled": {"type": "boolean"},
        "labels": TEXTS,
        "annotations": TEXTS,
        "nodeSelector": TEXTS,
        # Kubernetes' own: validated as those of a pod.
        "containers": {"type": "array", "minItems": 1},
        "volumes": {"type": "array"},
    },
}
INFERENCE_SERVICE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["predictor"],
    "properties": {
        "predictor": {
            "type": "object",
            "additionalProperties": False,
            "required": ["model"],
            "properties": {
                "minReplicas": COUNT,
                "maxReplicas": COUNT,
                "scaleMetric": {"enum": ["cpu", "memory", "concurrency", "rps"]},
                "scaleTarget": COUNT,
                "containerConcurrency": COUNT,
                "timeout": COUNT,
                "canaryTrafficPercent": {"type": "integer", "minimum": 0, "maximum": 100},
                "model": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["modelFormat"],
                    "properties": {
                        "modelFormat": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["name"],
                            "properties": {"name": TEXT, "version": TEXT},
                        },
                        "runtime": TEXT,
                        "protocolVersion": PROTOCOL,
                        "storageUri": {"type": "string", "pattern": r"^(s3|gs|hdfs|webhdfs|hf|pvc|oci)://|^https?://"},
                        # Validated as that of a pod's container.
                        "env": {"type": "array"},
                    },
                },
            },
        },
    },
}


def validate(runtime: dict[str, Any], service: dict[str, Any]) -> None:
    jsonschema.validate(runtime, SERVING_RUNTIME)
    jsonschema.validate(service, INFERENCE_SERVICE)
    (container,) = runtime["containers"]
    merged = {**container, "env": [*container["env"], *service["predictor"]["model"]["env"]]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "halftone"},
        "spec": {"containers": [merged], "volumes": runtime["volumes"]},
    }
    for version in VERSIONS:
        kubernetes_validate.validate(pod, version, strict=True)


def test_they_are_valid() -> None:
    validate(RUNTIME["spec"], SERVICE["spec"])

    assert (RUNTIME["apiVersion"], RUNTIME["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    assert (SERVICE["apiVersion"], SERVICE["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")


@pytest.mark.parametrize(("field", "value"), [("scaleMetrics", "rps"), ("scaleMetric", "queue"), ("timeout", "60s")])
def test_the_validation_sees_a_mistake(field: str, value: str) -> None:
    wrong = {"predictor": PREDICTOR | {field: value}}

    with pytest.raises(jsonschema.ValidationError, match=value):
        validate(RUNTIME["spec"], wrong)


def test_the_service_asks_for_the_runtime() -> None:
    formats = RUNTIME["spec"]["supportedModelFormats"]
    model = PREDICTOR["model"]

    assert model["runtime"] == RUNTIME["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in formats}
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    assert PREDICTOR["minReplicas"] <= PREDICTOR["maxReplicas"]
    settings = Settings.from_environment(variables())
    assert PREDICTOR["scaleTarget"] < settings.queue
    assert PREDICTOR["timeout"] > settings.body_timeout + settings.deadline


def test_knative_takes_the_container() -> None:
    (port,) = CONTAINER["ports"]

    assert CONTAINER["name"] == "kserve-container"
    assert "lifecycle" not in CONTAINER
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == port["containerPort"]
        assert CONTAINER[probe]["httpGet"]["path"] in HEALTH


def test_it_is_the_container_of_the_deployment() -> None:
    mine, other = CONTAINER["securityContext"], container()["securityContext"]

    assert CONTAINER["image"] == f"halftone:{PROJECT['version']}"
    assert {name: mine[name] for name in other} == other
    assert CONTAINER["resources"] == container()["resources"]
    assert {"name": "HOME", "value": "/tmp"} in CONTAINER["env"]


def test_the_guide_names_every_file() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()

    assert [path.name for path in FOLDER.iterdir() if path.name not in guide] == []


def variables() -> dict[str, str]:
    """The environment of the container."""
    return {each["name"]: each["value"] for each in [*CONTAINER["env"], *PREDICTOR["model"]["env"]]}


# Everything is read-only but one folder; the content of `storageUri` is at /mnt/models.
POD = """
mount --bind "$TMPDIR" "$TMPDIR" && mount -t tmpfs none /mnt && mkdir /mnt/models &&
mount --bind "$0" /mnt/models && mount -o remount,bind,ro /mnt/models && mount -o remount,bind,ro / && exec "$@"
"""


def pod(stored: Path) -> list[str]:
    """Return the start of a command that runs it as in the pod; of none where the system has no namespaces for it."""
    tool = shutil.which("unshare")
    if not tool or subprocess.run([tool, "-rm", "true"], capture_output=True, check=False).returncode:
        return []
    return [tool, "-rm", "sh", "-c", POD, str(stored)]


@pytest.fixture(scope="module")
def served(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The default bundle as KServe's storage initialiser leaves it, with the environment of the manifests."""
    folder = tmp_path_factory.mktemp("kserve")
    temporary = folder / "tmp"
    temporary.mkdir()
    values = {name: value.replace("/tmp", str(temporary)) for name, value in variables().items()}
    start = pod(artifacts)
    if not start:
        values["HALFTONE_ARTIFACTS"] = str(artifacts)
    bentoml = str(Path(sys.executable).parent / "bentoml")
    command = [*start, bentoml, "serve", "--host", "127.0.0.1", "--port", "{port}"]
    with serve(None, folder / "log", command, TMPDIR=str(temporary), **QUICK, **values) as server:
        yield server


def test_the_layout_of_the_storage_initialiser_is_served(served: Server) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready"):
        assert served.get(path).status_code == 200, path
    answer = served.post("/classify", files={"image": (PHOTOS / "cat.jpg").read_bytes()}).json()
    assert answer["predictions"][0]["label"] in {"tabby", "tiger cat", "Egyptian cat"}
