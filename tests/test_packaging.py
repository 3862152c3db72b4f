"""What a user installs and builds from says the same thing in every place."""

import re
import tomllib
from importlib.metadata import distributions

import yaml

from tests.servers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    line.partition("==")[0]: line.partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def test_every_requirement_is_pinned() -> None:
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    names = {canonical(requirement) for requirement in [*PROJECT["dependencies"], *extras]} - {"halftone"}

    assert names - set(PINS) == set()


def test_what_is_installed_is_what_is_pinned() -> None:
    installed: dict[str, str] = {}
    for each in distributions():
        # The first on the path is the one that is imported: setuptools appends copies of its own.
        installed.setdefault(canonical(each.metadata["Name"]), each.version)
    pinned_here = {name: version for name, version in PINS.items() if name in installed}

    assert {name: installed[name].partition("+")[0] for name in pinned_here} == pinned_here


def test_a_bento_installs_what_serving_needs_and_nothing_else() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())

    assert bento["python"]["packages"] == PROJECT["dependencies"]


def test_serving_alone_needs_no_training_library() -> None:
    names = {canonical(requirement) for requirement in PROJECT["dependencies"]}

    assert names & {"torch", "torchvision", "timm", "albumentations", "onnx"} == set()
