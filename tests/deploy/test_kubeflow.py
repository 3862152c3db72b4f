"""The training job for Kubeflow's operator: valid by its published types, and a command that training takes."""

from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.test_kubernetes import VERSIONS
from tests.docs.command_lines import problem
from tests.servers import ROOT

JOB, CLAIM = yaml.safe_load_all((ROOT / "deploy" / "kubeflow" / "training.yaml").read_text())
WORKER = JOB["spec"]["pytorchReplicaSpecs"]["Worker"]
POD = WORKER["template"]["spec"]
(CONTAINER,) = POD["containers"]

COUNT = {"type": "integer", "minimum": 0}
REPLICA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "replicas": COUNT,
        "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
        # Validated as that of a pod.
        "template": {"type": "object", "required": ["spec"]},
    },
}
# What the training operator 1.9 asks of the job, as far as it is used here: pkg/apis/kubeflow.org/v1 of
# github.com/kubeflow/training-operator.
PYTORCH_JOB: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["pytorchReplicaSpecs"],
    "properties": {
        "nprocPerNode": {"type": "string", "pattern": r"^(auto|cpu|gpu|\d+)$"},
        "elasticPolicy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "rdzvBackend": {"enum": ["c10d", "etcd", "etcd-v2"]},
                "minReplicas": COUNT,
                "maxReplicas": COUNT,
                "maxRestarts": COUNT,
            },
        },
        "runPolicy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "cleanPodPolicy": {"enum": ["All", "Running", "None"]},
                "backoffLimit": COUNT,
            },
        },
        "pytorchReplicaSpecs": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"Master": REPLICA, "Worker": REPLICA},
        },
    },
}


def validate(job: dict[str, Any]) -> None:
    jsonschema.validate(job, PYTORCH_JOB)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "training"}, "spec": POD}
    for version in VERSIONS:
        kubernetes_validate.validate(pod, version, strict=True)
        kubernetes_validate.validate(CLAIM, version, strict=True)


def test_it_is_valid() -> None:
    validate(JOB["spec"])

    assert (JOB["apiVersion"], JOB["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert CONTAINER["name"] == "pytorch"


@pytest.mark.parametrize("wrong", [{"nprocPerNode": 1}, {"elasticPolicy": {"rdzvBackend": "tcp"}}, {"replicas": 2}])
def test_the_validation_sees_a_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(JOB["spec"] | wrong)


def test_it_always_has_the_same_number_of_processes() -> None:
    policy = JOB["spec"]["elasticPolicy"]

    assert policy["minReplicas"] == policy["maxReplicas"] == WORKER["replicas"]


def test_training_takes_the_command_and_keeps_everything_on_the_shared_volume() -> None:
    assert problem(list(CONTAINER["command"]), whole=True) == ""
    mounts = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    claims = {each["name"] for each in POD["volumes"] if "persistentVolumeClaim" in each}
    paths = [flag.partition("=")[2] for flag in CONTAINER["command"] if flag.startswith(("--data", "--output"))]

    assert set(mounts) == {each["name"] for each in POD["volumes"]}
    assert [mounts[name] for name in claims] == ["/shared"]
    assert len(paths) == 2
    assert all(path.startswith("/shared/") for path in paths)
    assert CLAIM["metadata"]["name"] == "halftone-training"
