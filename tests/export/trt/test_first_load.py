"""Test that a plan of which only the graph was proved does not serve before the plan itself was run."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from export.parity.gate import Gate
from export.parity.prove import prove
from export.parity.record import ParityRecord, UnprovenError, current, proof, record_name
from export.trt.first_load import verify_on_first_load
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from serving.lifecycle.selection import check_bundle
from serving.settings import Settings
from tests.export.conftest import NAME
from tests.export.simulated_gpu import Cuda

VARIANT, PLAN = "tensorrt_rtx-fp16", "engines/tensorrt_rtx-fp16.plan"
COMMAND = "`python -m export.parity --model efficientnet_lite0 --variant tensorrt_rtx-fp16`"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine without a GPU."""
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", Cuda(None))


@pytest.fixture(scope="module")
def proved(small: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Copy the default bundle and add a plan of which only the graph is proved."""
    bundle = Bundle.open(shutil.copytree(small / NAME, tmp_path_factory.mktemp("proved") / NAME))
    bundle.write(PLAN, b"plan", made_by="a test", made_from=[WEIGHTS, "model.fp16.onnx"])
    lenient = Gate(min_agreement=0)
    with Progress(disable=True) as progress:
        prove(bundle, {VARIANT: lenient}, labelled, progress, graphs={VARIANT: "onnxruntime-fp16"})
    return bundle


@pytest.fixture
def by_graph(proved: Bundle, tmp_path: Path) -> Bundle:
    """A copy of it."""
    return Bundle.open(shutil.copytree(proved.folder, tmp_path / NAME))


def mark_as_graph(bundle: Bundle, variant: str) -> None:
    """Change a variant's record so that only the graph counts as proved."""
    record = replace(current(bundle, variant), verified_on="graph")
    bundle.write(record_name(variant), record.to_json(), made_by="a test", made_from=[WEIGHTS, record.source])


def test_the_record_names_the_runtime_that_ran(by_graph: Bundle) -> None:
    record = current(by_graph, VARIANT)

    assert (record.verdict, record.verified_on) == ("PASSED", "graph")
    assert (record.runtime["name"], record.runtime["executed_as"]) == ("onnxruntime", "fp16 on CPU")
    assert (record.source, record.source_sha256) == (PLAN, by_graph.manifest.files[PLAN].sha256)


def test_serving_rejects_the_plan_and_names_the_command(by_graph: Bundle) -> None:
    with pytest.raises(UnprovenError) as caught:
        proof(by_graph, VARIANT)
    assert f"not {PLAN} itself: on the machine that serves it run {COMMAND}" in str(caught.value)

    settings = Settings(model="efficientnet_lite0", variant=VARIANT)
    with pytest.raises(UnprovenError, match=r"only the graph of tensorrt_rtx-fp16 .* was checked"):
        check_bundle("efficientnet_lite0", by_graph, settings)
    assert VARIANT not in check_bundle("efficientnet_lite0", by_graph, Settings(model="efficientnet_lite0"))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_first_load_fails_and_the_record_stays(by_graph: Bundle) -> None:
    before = by_graph.read(record_name(VARIANT))

    with pytest.raises(UnprovenError, match=r"only the graph .*\.plan can't be verified here: .*no CUDA GPU"):
        verify_on_first_load(by_graph, VARIANT)

    assert by_graph.read(record_name(VARIANT)) == before


def test_a_failed_graph_is_not_run(by_graph: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = replace(current(by_graph, VARIANT), verdict="FAILED", reasons=["too far off"])
    by_graph.write(record_name(VARIANT), failed.to_json(), made_by="a test", made_from=[WEIGHTS, PLAN])
    monkeypatch.setattr(subprocess, "run", pytest.fail)

    with pytest.raises(UnprovenError, match="too far off"):
        verify_on_first_load(by_graph, VARIANT)


def test_a_proved_variant_is_not_run_again(default: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", pytest.fail)

    assert verify_on_first_load(default, "onnxruntime-fp16") == proof(default, "onnxruntime-fp16")
    with pytest.raises(UnprovenError, match="has no proof"):
        verify_on_first_load(default, "onnxruntime-fp32x")


def test_the_comparison_replaces_the_record(copied: Bundle, labelled: Path) -> None:
    # Uses a variant that runs on every machine instead of a plan.
    mark_as_graph(copied, "onnxruntime-fp16")
    with pytest.raises(UnprovenError):
        proof(copied, "onnxruntime-fp16")

    record = verify_on_first_load(copied, "onnxruntime-fp16", data=labelled)

    assert (record.verdict, record.verified_on, record.data["labelled"]) == ("PASSED", "runtime", True)
    assert record.figures["pictures"] == 16
    assert record == proof(Bundle.open(copied.folder), "onnxruntime-fp16")


@pytest.mark.parametrize("torch", [True, False])
def test_a_comparison_that_fails(copied: Bundle, monkeypatch: pytest.MonkeyPatch, torch: bool) -> None:
    mark_as_graph(copied, "onnxruntime-fp16")
    words = r"can't be verified here: .*no/such/folder"
    if not torch:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        words = r"`pip install '\.\[export\]'`"

    with pytest.raises(UnprovenError, match=words):
        verify_on_first_load(copied, "onnxruntime-fp16", data=Path("no/such/folder"))

    assert current(copied, "onnxruntime-fp16").verified_on == "graph"


def test_older_records_count_as_run(default: Bundle) -> None:
    values: dict[str, Any] = json.loads(default.read("parity/onnxruntime-fp32.json"))
    values.pop("verified_on", None)

    assert ParityRecord.from_json(json.dumps(values).encode()).verified_on == "runtime"
    with pytest.raises(HalftoneError, match="verified on 'paper'"):
        ParityRecord.from_json(json.dumps(values | {"verified_on": "paper"}).encode())
