"""The export pipeline keeps what is valid, and proves again what serving would refuse."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.progress import Progress

from export.benchmark.__main__ import benchmark_model, cells
from export.parity import prove
from export.parity.record import ParityRecord, current, proof, record_name, verdict
from export.pipeline import make_variants
from export.variants import runtime_class
from models.bundle.bundle import WEIGHTS, Bundle
from tests.audit import audited, traces
from tests.commands import run, run_process
from tests.export.conftest import NAME, Exported
from tests.servers import PHOTOS

VARIANT = "openvino-fp32"


def outdated(bundle: Bundle) -> Bundle:
    """The bundle with a passed record of an older OpenVINO."""
    record = proof(bundle, VARIANT)
    older = replace(record, runtime=record.runtime | {"version": "2020.1.0"})
    bundle.write(record_name(VARIANT), older.to_json(), made_by="a test", made_from=[WEIGHTS, record.source])
    return bundle


def verdicts(bundle: Bundle) -> dict[str, str]:
    """Return the last column of the table of `export.benchmark`, by variant."""
    with Progress(disable=True) as progress:
        result = benchmark_model(bundle, rounds=1, seconds=0.001, progress=progress)
    return {row[1]: row[-1] for row in cells(result)}


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32"])
def test_every_variant_of_the_default_bundle_is_proven(artifacts: Path, variant: str) -> None:
    record = proof(Bundle.open(artifacts / NAME), variant)

    assert record.figures["images"] >= 256
    assert record.figures["decided_agreement"]["value"] >= 0.99
    assert record.figures["nan_or_inf"] == 0


def test_an_export_reports_nothing_to_anyone(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported("resnet18", 64).folder, tmp_path / "mine")
    environment = audited(tmp_path) | {"HALFTONE_ARTIFACTS": str(tmp_path)}

    result = run_process("export.openvino", "--model", "mine", env=environment)

    assert (result.returncode, traces(environment)) == (0, []), result.stderr


def test_a_second_export_changes_nothing(artifacts: Path) -> None:
    default = Bundle.open(artifacts / NAME)
    before = (default.folder / "manifest.json").read_bytes()
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(default.folder.parent)}

    result = run("export", "--model", default.manifest.name, "--no-int8", "--json", env=environment)
    document = json.loads(result.stdout)
    summary, following = result.stderr.splitlines()

    assert result.returncode == 0
    assert set(document["images_per_second"]) == set(document["proven"]) >= {"onnxruntime-fp32", "openvino-fp32"}
    assert summary.endswith(f"proven; serves here: {document['chosen']}")
    assert re.fullmatch(r"serve it with `HALFTONE_ARTIFACTS=\S+ HALFTONE_MODEL=\S+ bentoml serve`", following)
    assert (default.folder / "manifest.json").read_bytes() == before


def test_a_record_of_another_library_version_is_proved_again(copied: Bundle, labelled: Path) -> None:
    bundle = outdated(copied)
    again = ("parity/", "README.md", "promises.json")
    others = {name: file for name, file in bundle.manifest.files.items() if not name.startswith(again)}
    assert current(bundle, VARIANT).verdict == "PASSED"
    assert verdict(bundle, VARIANT) is None

    make_variants(bundle, data=labelled)

    record = proof(bundle, VARIANT)
    assert record.runtime["version"] == runtime_class("openvino").version()
    assert record.figures["pictures"] == 16
    assert verdict(bundle, VARIANT) == "PASSED"
    assert others.items() <= bundle.manifest.files.items()


def test_a_proof_is_made_again_on_the_pictures_that_are_asked_for(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each variant is proved on hundreds of crops: one of them is enough.
    monkeypatch.setattr(prove, "runtime_names", lambda: ["openvino"])
    monkeypatch.setattr(runtime_class("openvino"), "precisions", ("fp32",))
    shutil.copytree(exported("resnet18", 64).folder, tmp_path / "mine")
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(tmp_path)}
    bundle = Bundle.open(tmp_path / "mine")
    for label in bundle.manifest.labels[:4]:
        (tmp_path / "data" / label).mkdir(parents=True)
        for photo in ("cat.jpg", "coffee.jpg"):
            shutil.copy(PHOTOS / photo, tmp_path / "data" / label)

    def record(*arguments: object) -> ParityRecord:
        result = run("export", "--model", "mine", "--no-int8", *arguments, env=environment)
        assert result.returncode in (0, 1), result.stderr
        return current(Bundle.open(bundle.folder), VARIANT)

    first = record()
    asked = record("--data", tmp_path / "data")
    assert (first.data["labelled"], asked.data["labelled"]) == (False, True)
    assert (asked.data["description"], asked.figures["pictures"]) == ("labelled pictures of the folder data", 8)
    # Neither the same command nor one without pictures proves it again.
    assert record("--data", tmp_path / "data") == asked == record()

    wrong = run("export", "--model", "mine", "--data", tmp_path / "nowhere", env=environment)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith(f"error: --data {tmp_path}/nowhere: no such folder")


def test_the_benchmark_never_prints_a_pass_of_another_library_version(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts / NAME, tmp_path / NAME)

    printed = verdicts(outdated(Bundle.open(tmp_path / NAME)))

    assert printed[VARIANT] == "not proved"
    assert {verdict for variant, verdict in printed.items() if variant != VARIANT} == {"PASSED"}
