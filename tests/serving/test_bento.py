"""`bentoml build` makes a Bento that serves without a clone, in a container that runs as an unprivileged user."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from serving.bento import version
from tests.servers import PHOTOS, QUICK, ROOT, serve
from tests.test_packaging import PROJECT, canonical

BENTOML = str(Path(sys.executable).parent / "bentoml")
MARK = "<!-- from the Bento -->"
UNWANTED = (
    ".photos.training/run.json",
    ".photos.training/last-00001-000000007/weights.safetensors",
    ".photos.lock",
    "efficientnet_lite0/report/index.html",
    "efficientnet_lite0/report/mistakes/1.png",
    "efficientnet_lite0/training_pictures.bin",
    "efficientnet_lite0/.model.fp32.0123abcd.onnx",
)
"""Files that training and a killed export leave next to the bundles."""


def environment() -> dict[str, str]:
    """Return the environment without variables that lead back to the repository's files."""
    ours = ("HALFTONE_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="module")
def bento(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built folder, made by the command that a user types in a clone with the default bundle."""
    folder = tmp_path_factory.mktemp("bento")
    context = folder / "clone"
    for name in ("models", "export", "serving", "training"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, context)
    shutil.copytree(artifacts, context / "artifacts")
    for unwanted in UNWANTED:
        (context / "artifacts" / unwanted).parent.mkdir(parents=True, exist_ok=True)
        (context / "artifacts" / unwanted).write_text("not for serving")
    options = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    # Locking queries a package index for the newest versions, which a test must not depend on.
    options["python"]["lock_packages"] = False
    (context / "bentofile.yaml").write_text(yaml.safe_dump(options))
    result = subprocess.run(
        [BENTOML, "build", "--output", "tag"],
        cwd=context,
        env=environment() | {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    name, _, tag = result.stdout.strip().removeprefix("__tag__:").partition(":")
    shutil.rmtree(context)
    return folder / "home" / "bentos" / name / tag


def test_it_serves_on_its_own(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    page = bento / "src" / "serving" / "api" / "ui" / "page.html"
    page.write_text(page.read_text() + MARK)
    # The command of the container's entry point, in the same folder.
    command = [BENTOML, "serve", "--host", "127.0.0.1", "--port", "{port}", str(bento)]

    with serve(None, tmp_path / "log", command, cwd=bento, **QUICK) as server:
        answer = server.post("/classify", content=(PHOTOS / "cat.jpg").read_bytes()).json()
        described = server.get("/docs.json").json()
        page_text = server.get("/ui").text
        sample = server.get("/ui/small/cat.jpg")

    assert answer["predictions"][0]["label"] in {"tabby", "tiger cat", "Egyptian cat"}
    assert described["info"]["version"] == PROJECT["version"]
    assert page_text.endswith(MARK)
    assert sample.headers["content-type"] == "image/jpeg"


def test_it_holds_what_serving_needs_and_nothing_else(bento: Path) -> None:
    top = {path.name for path in (bento / "src").iterdir() if path.name != "__pycache__"}

    assert top == {
        "bentofile.yaml",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "artifacts",
        "models",
        "export",
        "serving",
    }


def test_it_packs_of_the_bundles_only_what_serves(bento: Path, artifacts: Path) -> None:
    def files(folder: Path) -> set[str]:
        # A service that was killed while it wrote a file leaves a hidden one.
        found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(folder).as_posix() for path in found}

    assert files(bento / "src" / "artifacts") == files(artifacts)


def test_its_environment_has_no_training_library(bento: Path) -> None:
    requirements = [line for line in (bento / "env/python/requirements.txt").read_text().splitlines() if line]
    names = {canonical(line) for line in requirements if not line.startswith("-")}

    assert names == {canonical(line) for line in PROJECT["dependencies"]}
    assert not names & {"torch", "torchvision", "timm", "albumentations", "onnx"}


def test_its_container_runs_as_a_user_without_rights(bento: Path) -> None:
    lines = (bento / "env/docker/Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]

    assert users[-1:] == ["bentoml"]
    assert lines.index("USER bentoml") > max(i for i, line in enumerate(lines) if line.startswith("RUN "))
    assert any(line.startswith("FROM python:3.") and "-slim" in line for line in lines)
    assert any("BENTOML_DO_NOT_TRACK=True" in line for line in lines)


def test_the_version_is_known_without_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)

    assert version.__wrapped__() == PROJECT["version"]


def test_the_size_of_its_environment_is_printed() -> None:
    command = [sys.executable, "-m", "serving.footprint", "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    sizes = json.loads(result.stdout)
    assert {"bentoml", "numpy", "openvino", "pillow", "starlette"} <= set(sizes)
    assert not {"torch", "timm"} & set(sizes)
    assert all(each > 0 for name, each in sizes.items() if name != "types-psutil")
