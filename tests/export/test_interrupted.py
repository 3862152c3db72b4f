"""What a killed export leaves: the message names a command, which repairs it; two exports never undo each other."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.parity.record import DamagedRecordError, current, proof, record_name, verdict
from export.pipeline import drop_damaged
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import HashMismatchError, SymlinkError
from models.bundle.store import exporting
from tests.commands import run
from tests.servers import ROOT

VARIANT = "openvino-fp32"
RECORD = record_name(VARIANT)

KILLED = """
import os, signal, sys
from pathlib import Path
from models.bundle.bundle import Bundle
replace = Path.replace
def killed(path, target):
    replace(path, target)
    os.kill(os.getpid(), signal.SIGKILL)
bundle = Bundle.open(Path(sys.argv[1]))
with bundle.writing(sys.argv[2], made_by="a test") as path:
    path.write_bytes(bundle.read(sys.argv[2]) + b" ")
    Path.replace = killed
"""


@pytest.fixture
def mine(copied: Bundle) -> Bundle:
    """A copy of the default bundle in a folder of another name than the manifest's."""
    return Bundle.open(copied.folder.rename(copied.folder.with_name("mine")))


def killed_between_file_and_manifest(bundle: Bundle, name: str) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, bundle.folder, name], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL


def export(bundle: Bundle, *more: object) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(bundle.folder.parent)}
    return run("export", "--model", bundle.name, "--no-int8", *more, env=environment)


def test_the_command_of_the_message_repairs_what_a_killed_export_left(mine: Bundle, labelled: Path) -> None:
    killed_between_file_and_manifest(mine, RECORD)
    killed_between_file_and_manifest(mine, "README.md")
    with pytest.raises(DamagedRecordError) as damaged:
        proof(mine, VARIANT)
    assert verdict(mine, "onnxruntime-fp32") == "PASSED"
    advice = re.search(r"`(HALFTONE_ARTIFACTS)=(.*) python -m (.*)`", str(damaged.value))
    assert advice

    environment = os.environ | {advice[1]: shlex.split(advice[2])[0]}
    repaired = run(*shlex.split(advice[3]), "--no-int8", "--data", labelled, env=environment)

    assert repaired.returncode == 0, repaired.stderr
    assert f"repaired {mine.folder}: made README.md, {RECORD} again" in repaired.stdout
    again = Bundle.open(mine.folder)
    assert again.damaged() == {}
    assert proof(again, VARIANT).figures["pictures"] == 16
    assert {path.name for path in mine.folder.rglob(".*")} == set()


@pytest.mark.parametrize("name", ["model.fp16.onnx", "model.fp32.onnx", "speed.json", RECORD])
def test_a_damaged_file_costs_only_what_needs_it(mine: Bundle, name: str) -> None:
    killed_between_file_and_manifest(mine, name)
    lost = {"model.fp16.onnx": {"onnxruntime-fp16"}, "model.fp32.onnx": {"onnxruntime-fp32", "openvino-fp32"}}.get(
        name, {VARIANT} if name == RECORD else set()
    )

    assert drop_damaged(mine) == [name]

    variants = {"onnxruntime-fp16", "onnxruntime-fp32", "openvino-fp32"}
    assert {each for each in variants if verdict(mine, each) != "PASSED"} == lost


def test_damaged_weights_and_links_are_never_repaired_over(mine: Bundle, tmp_path: Path) -> None:
    (mine.folder / "README.md").unlink()
    (mine.folder / "README.md").symlink_to(tmp_path)
    with pytest.raises(SymlinkError):
        drop_damaged(mine)
    (mine.folder / "README.md").unlink()
    with (mine.folder / WEIGHTS).open("ab") as file:
        file.write(b" ")

    refused = export(mine)

    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1), refused.stderr
    assert f"remove {mine.folder}, then make it again with `python -m export --model" in refused.stderr
    with pytest.raises(HashMismatchError):
        mine.read(WEIGHTS)
    assert current(mine, VARIANT)


def test_a_second_export_of_a_bundle_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))

    with exporting("efficientnet_lite0"):
        second = run("export", "--model", "efficientnet_lite0")

    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1), second.stderr
    assert "another export of" in second.stderr
    assert "wait until it ends, then repeat the command" in second.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_same_command_continues_but_other_weights_are_refused(artifacts: Path) -> None:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(artifacts)}
    same, other = (
        run("export", "--model", "efficientnet_lite0", "--no-int8", "--weights", weights, env=environment)
        for weights in ("pretrained", "random")
    )

    assert (same.returncode, same.stderr) == (0, "")
    assert other.returncode == 2
    assert "already has weights" in other.stderr
