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
from export.parity.record import ParityRecord, current, proof, record_name, verdict
from export.pipeline import make_variants
from export.variants import runtime_class
from models.bundle.bundle import WEIGHTS, Bundle
from tests.audit import audited, traces
from tests.commands import run, run_process
from tests.export.conftest import Exported
from tests.servers import PHOTOS

VARIANT = "openvino-fp32"


@pytest.fixture
def outdated(copied: Bundle) -> Bundle:
    """The default bundle with a passed record of an older OpenVINO."""
    record = proof(copied, VARIANT)
    older = replace(record, runtime=record.runtime | {"version": "2020.1.0"})
    copied.write(record_name(VARIANT), older.to_json(), made_by="a test", made_from=[WEIGHTS, record.source])
    return copied


def verdicts(bundle: Bundle) -> dict[str, str]:
    """Return the last column of the table of `export.benchmark`, by variant."""
    with Progress(disable=True) as progress:
        result = benchmark_model(bundle, rounds=1, seconds=0.001, progress=progress)
    return {row[1]: row[-1] for row in cells(result)}


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32"])
def test_every_variant_of_the_default_bundle_is_proven(default: Bundle, variant: str) -> None:
    record = proof(default, variant)

    assert record.figures["images"] >= 256
    assert record.figures["decided_agreement"]["value"] >= 0.99
    assert record.figures["nan_or_inf"] == 0


def test_an_export_reports_nothing_to_anyone(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported("vit_ti16", 112).folder, tmp_path / "mine")
    environment = audited(tmp_path) | {"HALFTONE_ARTIFACTS": str(tmp_path)}

    result = run_process("export.openvino", "--model", "mine", env=environment)

    assert (result.returncode, traces(environment)) == (0, []), result.stderr


def test_a_second_export_changes_nothing(default: Bundle) -> None:
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


def test_a_record_of_another_library_version_is_proved_again(outdated: Bundle, labelled: Path) -> None:
    again = ("parity/", "README.md", "promises.json")
    others = {name: file for name, file in outdated.manifest.files.items() if not name.startswith(again)}
    assert current(outdated, VARIANT).verdict == "PASSED"
    assert verdict(outdated, VARIANT) is None

    make_variants(outdated, data=labelled)

    record = proof(outdated, VARIANT)
    assert record.runtime["version"] == runtime_class("openvino").version()
    assert record.figures["pictures"] == 16
    assert verdict(outdated, VARIANT) == "PASSED"
    assert others.items() <= outdated.manifest.files.items()


def test_a_proof_is_made_again_on_the_pictures_that_are_asked_for(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported("vit_ti16", 112).folder, tmp_path / "mine")
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


def test_the_benchmark_never_prints_a_pass_of_another_library_version(outdated: Bundle) -> None:
    printed = verdicts(outdated)

    assert printed[VARIANT] == "not proved"
    assert {verdict for variant, verdict in printed.items() if variant != VARIANT} == {"PASSED"}
