"""BentoML model store, in separate processes, because importing BentoML emits warnings."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from export.parity.record import proof
from models.bundle.bundle import Bundle
from tests.export.exchange.conftest import Command
from tests.export.trained import trained_bundle
from tests.servers import ROOT

MODEL = "efficientnet_lite0"
BENTOML = str(Path(sys.executable).parent / "bentoml")

PRELUDE = """
import json
import os
from pathlib import Path
import bentoml
from export.exchange import bentoml_store
from models.common.errors import HalftoneError
from models.bundle.store import open_bundle

def push(model):
    return bentoml_store.push_bento(open_bundle(model))

def pull(tag, name):
    return bentoml_store.pull_bento(tag, Path(os.environ["HALFTONE_ARTIFACTS"]) / name).manifest.version

def attempt(function, *arguments):
    try:
        return function(*arguments)
    except (HalftoneError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"

def stored():
    return [str(model.tag) for model in bentoml.models.list()]
"""


def in_process(home: Path, script: str) -> list[str]:
    """Run a script with the helpers above, these bundles and a store next to them; return the JSON that it prints."""
    settings = {"HALFTONE_ARTIFACTS": str(home), "BENTOML_HOME": str(home.parent / "bentoml")}
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def test_the_whole_bundle_travels_with_its_proofs(
    default: Bundle, home: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(default.folder, home / MODEL)
    tag = f"{MODEL}:{default.manifest.version}"

    there = command("export.push", "--model", MODEL, "--to", "bentoml")
    back = command("export.pull", "--from", f"bentoml:{MODEL}", "--name", "again")

    assert (there.returncode, there.stderr) == (0, "")
    assert tag in there.stdout
    assert (back.returncode, back.stderr) == (0, "")
    assert f"version {default.manifest.version}" in back.stdout
    again, before = Bundle.open(home / "again"), default.manifest
    for name, record in before.files.items():
        assert again.read(name) == default.read(name)
        assert again.manifest.files[name].made_from == record.made_from
    assert set(again.manifest.files) == set(before.files)
    assert proof(again, "onnxruntime-fp32").verdict == "PASSED"
    # The commands that repair its files name it as it is called now.
    files = again.manifest.files
    assert files["model.fp32.onnx"].made_by == "`python -m export.onnx --model again --precision fp32`"
    assert files["speed.json"].made_by == "`python -m export --model again`"
    assert files["weights.safetensors"].made_by == f"`python -m export.pull --from bentoml:{MODEL} --name again`"
    # BentoML's own command sees it, and it can be served from where it lies in the store.
    environment = os.environ | {"BENTOML_HOME": str(tmp_path / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    listed = subprocess.check_output([BENTOML, "models", "list", "-o", "json"], env=environment, text=True)
    assert [entry["tag"] for entry in json.loads(listed)] == [tag]
    (stored,) = (tmp_path / "bentoml" / "models" / MODEL).glob(f"*/{MODEL}/manifest.json")
    assert proof(Bundle.open(stored.parent), "openvino-fp32").verdict == "PASSED"


def test_what_can_not_be_done_is_said_in_one_line(home: Path, tmp_path: Path) -> None:
    bundle = trained_bundle(home / "mine")
    trained_bundle(home / "damaged").locate("README.md").write_text("other")
    tag = f"mine:{bundle.manifest.version}"
    changed = tmp_path / "bentoml" / "models" / "mine" / bundle.manifest.version / "mine" / "weights.safetensors"

    answers = in_process(
        home,
        f"""
with bentoml.models.create("theirs"):
    pass
answers = [
    push("mine"),
    attempt(push, "mine"),
    attempt(push, "damaged"),
    attempt(pull, "other", "x"),
    attempt(pull, "mine:0000", "x"),
    attempt(pull, "mine:a b", "x"),
    attempt(pull, "", "x"),
    attempt(pull, "theirs", "x"),
]
Path({str(changed)!r}).write_bytes(b"other weights")
print(json.dumps([*answers, attempt(pull, "mine", "x"), *stored()]))
""",
    )

    expected = [
        tag,
        f"HalftoneError: the model store has {tag} already: remove it with `bentoml models delete {tag}`",
        "HashMismatchError: the content of",
        "HalftoneError: the model store has no other: `bentoml models list` shows what it has",
        "HalftoneError: the model store has no mine:0000",
        "can't be a name in the model store",
        "can't be a name in the model store",
        "of the model store is not a bundle of Halftone",
        "weights.safetensors differs from the manifest",
        tag,
        "theirs:",
    ]
    assert len(answers) == len(expected)
    for answer, words in zip(answers, expected, strict=True):
        assert words in answer
        assert "\n" not in answer
    assert sorted(path.name for path in home.iterdir()) == ["damaged", "mine"]


def test_an_interrupted_push_leaves_nothing(home: Path, tmp_path: Path) -> None:
    """BentoML copies into its store last; Ctrl-C may come in the middle of that."""
    trained_bundle(home / "mine")

    answers = in_process(
        home,
        """
import shutil
whole = shutil.copytree

def half(*arguments, **options):
    whole(*arguments, **options)
    raise KeyboardInterrupt("half way")

shutil.copytree = half
first = attempt(push, "mine")
shutil.copytree = whole
print(json.dumps([first, *stored(), push("mine")]))
""",
    )

    assert answers[0] == "KeyboardInterrupt: half way"
    assert len(answers) == 2
    assert answers[1].startswith("mine:")


def test_class_names_come_with_the_bundle(command: Command) -> None:
    result = command("export.pull", "--from", "bentoml:mine", "--name", "x", "--labels", "names.txt")

    assert (result.returncode, result.stdout) == (2, "")
    assert "--labels is for folders" in result.stderr
