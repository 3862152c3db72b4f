"""What a user installs and builds from says the same thing in every place."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import yaml

from halftone import COMMANDS
from tests.servers import PHOTOS, QUICK, ROOT, environment, serve

PACKAGES = {"models", "training", "export", "serving", "loadtest"}
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


CAME_WITH = {
    "huggingface_hub": "timm downloads its weights with it",
    "cv2": "albumentations brings one of OpenCV's four packages, which exclude each other",
}
"""Imported without being declared, and why."""


def imported() -> dict[str, str]:
    """Top-level name (or, in the namespace of OpenTelemetry, the whole one) to a file that imports it."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            # The peers run in environments of their own.
            if (ROOT / "loadtest" / "peers") not in path.parents:
                found |= {name: str(path.relative_to(ROOT)) for name in names_imported_by(path)}
    return found


def names_imported_by(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name if name.startswith("opentelemetry.instrumentation") else name.partition(".")[0] for name in names}


def test_every_import_is_declared() -> None:
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    declared = {canonical(requirement) for requirement in [*PROJECT["dependencies"], *extras]}
    provided = packages_distributions() | {
        "opentelemetry": ["opentelemetry-api"],
        "opentelemetry.instrumentation.asgi": ["opentelemetry-instrumentation-asgi"],
    }
    ours = {*PACKAGES, *sys.stdlib_module_names, *CAME_WITH}

    undeclared = {
        name: path
        for name, path in imported().items()
        if name not in ours and not {canonical(each) for each in provided.get(name, [name])} & declared
    }

    assert undeclared == {}


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


def test_every_extra_is_documented() -> None:
    named = (ROOT / "docs" / "deploy.md").read_text().partition("The extras: ")[2].partition("\n\n")[0]

    assert [extra for extra in PROJECT["optional-dependencies"] if f"`{extra}`" not in named] == []


def test_deployments_and_docs_name_the_images_of_this_version() -> None:
    files = [each for each in (ROOT / "deploy").rglob("*.yaml")] + [*(ROOT / "docs").glob("*.md")]
    tag = re.compile(r"(?:newTag: |halftone(?:-training)?:|build --version )(\d+\.\d+\.\d+)")

    found = {version for file in files for version in tag.findall(file.read_text())}

    assert found == {PROJECT["version"]}


def test_the_citation_names_the_version_and_the_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())

    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_serving_alone_needs_no_training_library() -> None:
    names = {canonical(requirement) for requirement in PROJECT["dependencies"]}

    assert names & {"torch", "torchvision", "timm", "albumentations", "onnx"} == set()


MARK = "<!-- of the wheel -->"
"""Tells the page of the wheel from that of the working tree."""


def installed(tmp_path: Path) -> tuple[Path, Path]:
    """Make a wheel of the sources, install it, and return the folder of packages and the wheel."""
    source, site = tmp_path / "source", tmp_path / "site"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # A copy, as setuptools writes its own files next to pyproject.toml.
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    with (source / "serving" / "api" / "ui" / "page.html").open("a") as page_file:
        page_file.write(MARK)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    return site, wheel


def test_a_wheel_serves_from_another_folder(artifacts: Path, tmp_path: Path) -> None:
    site, wheel = installed(tmp_path)
    # A package with the name of one of ours lies in the current folder, and there is no home that can be written.
    here, home = tmp_path / "elsewhere", tmp_path / "home"
    home.touch()
    for package in PACKAGES:
        (here / package).mkdir(parents=True)
        (here / package / "__init__.py").write_text("raise ImportError('not ours')\n")
    command = [str(site / "bin" / "halftone"), "serve", "--port", "{port}"]
    variables = {"PYTHONPATH": str(site), "HOME": str(home), "BENTOML_HOME": "", "TMPDIR": str(tmp_path), **QUICK}
    variables |= {"HALFTONE_COLLECT": "collected", "PWD": str(here)}
    linked = here / "artifacts"
    linked.symlink_to(artifacts)

    with serve(None, tmp_path / "log", command, cwd=here, **variables) as server:
        answer = server.post("/classify", files={"image": (PHOTOS / "cat.jpg").read_bytes()})
        page = server.get("/ui")
        log = server.log.read_text()
        hint = re.search(r"try it:  (curl .*)", log)
        assert hint
        tried = subprocess.run(["sh", "-c", f"{hint[1]} -s"], cwd=here, capture_output=True, check=True)
        homes = list(tmp_path.glob("halftone-bentoml-*"))
        server.process.terminate()
        code = server.process.wait(timeout=30)

    assert (len(homes), code, list(tmp_path.glob("halftone-bentoml-*"))) == (1, 0, [])
    assert f"bundles: {linked}\n" in log
    assert "cat" in answer.json()["predictions"][0]["label"]
    assert json.loads(tried.stdout)["predictions"] == answer.json()["predictions"]
    assert (here / "collected").is_dir()
    assert page.text.startswith("<!doctype html>")
    assert page.text.endswith(MARK)
    shipped = set(zipfile.ZipFile(wheel).namelist())
    assert {"loadtest/client/wrk.lua", "export/photos/cat.jpg", "serving/api/ui/main.js"} <= shipped
    assert [name for name in shipped if name.startswith("training/report/") and name.endswith(".html")] != []
    assert {name.partition("/")[0] for name in shipped if not name.startswith("halftone-")} == {
        *PACKAGES,
        "halftone.py",
    }
    for name, code, out, err in (
        ("models", 0, "efficientnet_lite0", f"artifacts: {linked}"),
        ("--help", 0, f"artifacts: {linked}", ""),
        ("model", 2, "", "error: there is no command 'model': choose one of serve, train,"),
    ):
        result = subprocess.run(
            [command[0], name],
            cwd=here,
            env=environment(None, **variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, out in result.stdout, err in result.stderr) == (code, True, True), result


def test_every_command_of_the_console_script_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()

    assert [module for module in COMMANDS.values() if f"`python -m {module}" not in page] == []
