"""Private parts of BentoML, uvicorn and circus: they exist in the installed versions, and a missing one is one line."""

import ast
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from serving.process import bentoml_compat
from serving.process.bentoml_compat import (
    BENTOML,
    CIRCUS,
    SUPERVISOR_PARTS,
    UVICORN,
    WORKER_PARTS,
    IncompatibleLibraryError,
    Part,
    check_supervisor,
    check_worker,
    static_files,
)
from tests.servers import ROOT
from tests.serving.process.starts import refused

# BentoML uses deprecated names of its own dependencies when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PARTS = (*WORKER_PARTS, *SUPERVISOR_PARTS)
NEEDS = [pytest.param(part, need, id=f"{part.module}.{part.name}.{need}") for part in PARTS for need in part.needs]
PRIVATE = re.compile(
    r"(bentoml|uvicorn|starlette|openvino|kantoku|circus|onnxruntime)\._|_bentoml_impl|_bentoml_sdk|HTTP_PROTOCOLS"
)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every library seem to have a newer version."""
    monkeypatch.setattr(bentoml_compat, "version", lambda name: "99.1")


def shown(part: Part, need: str = "") -> str:
    """Return a part's name as the message shows it."""
    return ".".join(filter(None, (part.module, part.name, need))).removeprefix(part.library.package)


def expected(part: Part, need: str = "") -> str:
    library = part.library
    return (
        f"{library.name} 99.1 has no `{shown(part, need)}` (Halftone was written for {library.written_for}): "
        f"`pip install '{library.name}=={library.written_for}'`"
    )


def test_the_installed_versions_have_everything() -> None:
    check_worker()
    check_supervisor()

    assert "index.css" in static_files()


@pytest.mark.parametrize("library", [BENTOML, UVICORN, CIRCUS], ids=lambda library: library.name)
def test_the_tested_versions_are_those_that_the_code_was_written_for(library: bentoml_compat.Library) -> None:
    assert f"{library.name}=={library.written_for}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_every_part_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Part] = []

    def load(part: Part) -> None:
        loaded.append(part)

    monkeypatch.setattr(Part, "load", load)

    check_worker()
    check_supervisor()

    assert set(loaded) == {each for each in vars(bentoml_compat).values() if isinstance(each, Part)} == set(PARTS)


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.module}.{part.name}")
def test_a_missing_object_is_named_with_the_fix(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, part.module, ModuleType(part.module))

    with pytest.raises(IncompatibleLibraryError) as raised:
        part.load()

    assert str(raised.value) == expected(part)


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part.module}.{part.name}")
def test_a_missing_module_is_named_with_the_fix(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, part.module, None)  # type: ignore[arg-type]

    with pytest.raises(IncompatibleLibraryError) as raised:
        part.load()

    assert str(raised.value) == expected(part)


@pytest.mark.usefixtures("newer")
@pytest.mark.parametrize(("part", "need"), NEEDS)
def test_a_missing_attribute_is_named_with_the_fix(part: Part, need: str, monkeypatch: pytest.MonkeyPatch) -> None:
    others = SimpleNamespace(**{each: None for each in part.needs if each != need})
    monkeypatch.setattr(f"{part.module}.{part.name}", others)

    with pytest.raises(IncompatibleLibraryError) as raised:
        part.load()

    assert str(raised.value) == expected(part, need)


@pytest.mark.usefixtures("newer")
def test_a_missing_folder_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bentoml_compat, "files", lambda package: tmp_path)

    with pytest.raises(IncompatibleLibraryError, match=r"bentoml 99\.1 has no `_internal\.server\.static_content`"):
        check_worker()


def test_a_damaged_installation_is_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("uvicorn.server.ServerState")

    with pytest.raises(IncompatibleLibraryError, match="is damaged: `pip install --force-reinstall 'uvicorn=="):
        check_worker()


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Part(bentoml_compat.Library("halftone-no-such-library", "1.0", ""), "halftone_no_such_library", "name")

    with pytest.raises(IncompatibleLibraryError, match="is not installed: `pip install 'halftone-no-such-library==1"):
        absent.load()


WITHOUT = """
import importlib.machinery, importlib.metadata, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "bentoml._internal.utils.circus":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def exec_module(module):
            execute(module)
            del module.Arbiter
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder)
installed = importlib.metadata.version
importlib.metadata.version = lambda name: "1.4.52" if name == "bentoml" else installed(name)
"""
"""A `sitecustomize` with a BentoML that looks newer and has another supervisor."""


def test_bentoml_serve_refuses_a_newer_bentoml_in_one_line(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)

    line = refused(artifacts, PYTHONPATH=str(tmp_path))

    assert line == (
        "error: bentoml 1.4.52 has no `_internal.utils.circus.Arbiter` (Halftone was written for 1.4.39): "
        "`pip install 'bentoml==1.4.39'`\n"
    )


def sources() -> list[Path]:
    return [path for path in (ROOT / "serving").rglob("*.py") if path != Path(bentoml_compat.__file__)]


def test_no_other_file_names_a_private_part_of_these_libraries() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), match[0])
        for path in sources()
        for match in PRIVATE.finditer(path.read_text())
    }

    assert named == set()


def test_no_other_file_uses_a_private_attribute_or_replaces_one() -> None:
    """Private: of something other than `self`; replaced: an attribute of an imported module or class."""
    found: set[str] = set()
    for path in sources():
        tree = ast.parse(path.read_text())
        imported = {
            (alias.asname or alias.name).partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner, text = ast.unparse(node.value), ast.unparse(node)
                private = node.attr.startswith("_") and not node.attr.startswith("__") and owner not in ("self", "cls")
                replaced = isinstance(node.ctx, ast.Store | ast.Del) and owner.partition(".")[0] in imported
                if private or replaced:
                    found.add(f"{path.relative_to(ROOT).as_posix()}: {text}")

    assert {each for each in found if not each.endswith(": os._exit")} == set()
